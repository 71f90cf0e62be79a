// The sandbox container of every pod of the test cluster: it holds the pod's namespaces and does nothing else.
//
// Tests use it as the container of a prefill pod, too, and tell it by DO what becomes of it:
//
//	(nothing)            waits, and exits with 0 when it is asked to end
//	work                 waits, and exits with 1 when it is asked to end, as a prefill does that is not complete
//	exit CODE [MESSAGE]  writes its termination message and exits
//	eat                  takes memory until it is killed
package main

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	words := strings.SplitN(os.Getenv("DO"), " ", 3)
	switch words[0] {
	case "exit":
		if len(words) > 2 {
			if err := os.WriteFile("/dev/termination-log", []byte(words[2]), 0o666); err != nil {
				panic(err)
			}
		}
		code, err := strconv.Atoi(words[1])
		if err != nil {
			panic(err)
		}
		os.Exit(code)
	case "eat":
		for eaten := [][]byte{}; ; {
			mouthful := make([]byte, 1<<20)
			for at := range mouthful {
				mouthful[at] = 1
			}
			eaten = append(eaten, mouthful)
		}
	case "work":
		<-end
		os.Exit(1)
	default:
		<-end
	}
}
