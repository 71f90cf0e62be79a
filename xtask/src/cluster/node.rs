//! The node: the first process (PID 1) of a cluster's namespaces. It prepares mounts and network, starts the
//! components, and starts again what dies, as systemd and static pods do on a real node. When it ends, the kernel
//! ends everything else on the node.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitOptions, wait};

use crate::commands::{output, succeeds};

/// Addresses of the node and of the cluster's DNS, which the node's own bridge holds.
const ADDRESSES: [&str; 2] = ["192.0.2.1/32", "10.96.0.10/32"];

/// How long a component that ended stays down.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Arguments of the first process of a node.
#[derive(clap::Args)]
pub struct Args {
    /// The cluster's run folder
    run: PathBuf,
    /// The folder of the cluster's programs
    bin: PathBuf,
    /// The cgroup of its pods
    cgroup: String,
    /// End when standard input ends
    #[arg(long)]
    lifeline: bool,
    /// The minor version that the control plane emulates, such as 1.31; its own without it
    #[arg(long, env = "HEADSTART_KUBERNETES")]
    emulate: Option<String>,
}

/// The components that know how to behave as an older version (KEP-4330).
const EMULATING: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// When a component is started.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Boot,
    /// The apiserver answers and has made its default roles, and containerd listens.
    ControlPlaneReady,
}

struct Component {
    name: &'static str,
    when: When,
    arguments: &'static [&'static str],
}

/// The components in the order of their start. They run in `/run/cluster/pki`.
const COMPONENTS: [Component; 8] = [
    Component {
        name: "etcd",
        when: When::Boot,
        arguments: &[
            "--data-dir=/var/lib/etcd",
            // A killed etcd loses nothing without it; only a power cut would, and then the cluster is gone anyhow.
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
    },
    Component {
        name: "containerd",
        when: When::Boot,
        arguments: &["--config=/run/cluster/config/containerd.toml"],
    },
    Component {
        name: "kube-apiserver",
        when: When::Boot,
        arguments: &[
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=6443",
            "--advertise-address=192.0.2.1",
            "--client-ca-file=ca.crt",
            "--tls-cert-file=apiserver.crt",
            "--tls-private-key-file=apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=sa.pub",
            "--service-account-signing-key-file=sa.key",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--allow-privileged=true",
            "--audit-policy-file=/run/cluster/config/audit-policy.yaml",
            "--audit-log-path=/run/cluster/var/log/audit.log",
            "--kubelet-client-certificate=admin.crt",
            "--kubelet-client-key=admin.key",
            "--kubelet-certificate-authority=ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
        ],
    },
    Component {
        name: "kube-controller-manager",
        when: When::Boot,
        arguments: &[
            "--kubeconfig=/run/cluster/controller-manager.kubeconfig",
            "--leader-elect=false",
            "--service-account-private-key-file=sa.key",
            "--root-ca-file=ca.crt",
            "--use-service-account-credentials",
        ],
    },
    Component {
        name: "kube-scheduler",
        when: When::Boot,
        arguments: &["--kubeconfig=/run/cluster/scheduler.kubeconfig", "--leader-elect=false"],
    },
    Component {
        name: "kubelet",
        when: When::ControlPlaneReady,
        arguments: &[
            "--config=/run/cluster/config/kubelet.yaml",
            "--kubeconfig=/run/cluster/node1.kubeconfig",
            "--hostname-override=node1",
            "--node-ip=192.0.2.1",
        ],
    },
    Component {
        name: "kube-proxy",
        when: When::ControlPlaneReady,
        arguments: &[
            "--kubeconfig=/run/cluster/proxy.kubeconfig",
            "--hostname-override=node1",
            "--cluster-cidr=10.244.0.0/24",
            "--proxy-mode=iptables",
            "--conntrack-max-per-core=0",
        ],
    },
    Component {
        name: "coredns",
        when: When::ControlPlaneReady,
        arguments: &["-conf=/run/cluster/config/Corefile"],
    },
];

/// Runs the node until it is killed, or until its lifeline is cut.
///
/// # Errors
/// Another process already is this cluster's node, or the namespaces could not be prepared.
pub fn run(Args { run, bin, cgroup, lifeline, emulate }: Args) -> Result<()> {
    let only_one = File::create(run.join("node.lock"))?;
    if only_one.try_lock().is_err() {
        bail!("{} has a node already", run.display());
    }
    // `/proc` still is the one of the machine, so this is the process id that the machine knows.
    let own = fs::read_link("/proc/self").context("/proc is not mounted")?;
    fs::write(run.join("node.pid.new"), own.as_os_str().as_encoded_bytes())?;
    fs::rename(run.join("node.pid.new"), run.join("node.pid"))?;

    mount(&run, &bin)?;
    connect()?;
    if lifeline {
        thread::spawn(|| {
            let ended = std::io::stdin().read_to_end(&mut Vec::new());
            eprintln!("the lifeline was cut ({ended:?}): the node ends");
            std::process::exit(0);
        });
    }
    supervise(&cgroup, emulate.as_deref())
}

/// Gives the node a `/proc`, `/run` and `/var` of its own, so that each program finds its usual paths there.
fn mount(run: &Path, bin: &Path) -> Result<()> {
    // Seen from within the node's `/run`, in case the workspace itself lies below `/var`.
    let mounts = |arguments: &[&str]| output(Command::new("mount").args(arguments)).map(drop);
    let (run, bin) = (run.display().to_string(), bin.display().to_string());
    mounts(&["-t", "proc", "proc", "/proc"])?;
    mounts(&["-t", "tmpfs", "tmpfs", "/run"])?;
    for (from, to) in [(&run, "/run/cluster"), (&bin, "/run/bin")] {
        fs::create_dir(to)?;
        mounts(&["--bind", from, to])?;
    }
    // Of the machine's `/var` only `/var/tmp` stays, where tests put the folders of their volumes.
    mounts(&["--bind", "/var/tmp", "/run/cluster/var/tmp"])?;
    // containerd lays containers out as overlays, and an overlay can not lie on another one, as in a container.
    if output(Command::new("stat").args(["-f", "-c", "%T", "/run/cluster"]))?.trim() == "overlayfs" {
        fs::create_dir("/run/cluster/var/lib/containerd")?;
        mounts(&["-t", "tmpfs", "tmpfs", "/run/cluster/var/lib/containerd"])?;
    }
    mounts(&["--rbind", "/run/cluster/var", "/var"])?;
    // The kubelet hands mounts on to containers. Nothing gets out: unshare made all mounts private before.
    mounts(&["--make-rshared", "/"])
}

/// A loopback, and a bridge that leads nowhere but holds the node's addresses and the default route, without
/// which neither kube-proxy nor the pods' bridge work.
fn connect() -> Result<()> {
    let ip = |arguments: &str| output(Command::new("ip").args(arguments.split(' '))).map(drop);
    ip("link set lo up")?;
    ip("link add node0 type bridge")?;
    for address in ADDRESSES {
        ip(&format!("addr add {address} dev node0"))?;
    }
    ip("link set node0 up")?;
    ip("route add default dev node0")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("could not turn on forwarding between pods")
}

/// Starts the components, waits for any process, and starts a component again that ended. Being the first process,
/// it also collects the orphans of the node: containerd's shims.
fn supervise(cgroup: &str, emulate: Option<&str>) -> ! {
    let mut running: HashMap<Pid, &Component> = HashMap::new();
    let mut down: Vec<(Instant, &Component)> =
        COMPONENTS.iter().map(|component| (Instant::now(), component)).collect();
    let mut booted = false;
    loop {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(component) = running.remove(&pid) {
                eprintln!("{} ended: {status:?}", component.name);
                down.push((Instant::now() + RESTART_AFTER, component));
            }
        }
        booted = booted || control_plane_ready();
        down.retain(|(due, component)| {
            if *due > Instant::now() || (component.when == When::ControlPlaneReady && !booted) {
                return true;
            }
            match start(component, cgroup, emulate) {
                Ok(pid) => running.insert(pid, component),
                Err(error) => {
                    eprintln!("{error:#}");
                    return true;
                }
            };
            false
        });
        sleep(Duration::from_millis(100));
    }
}

fn start(component: &Component, cgroup: &str, emulate: Option<&str>) -> Result<Pid> {
    let name = component.name;
    let log = File::options().create(true).append(true).open(format!("/var/log/{name}.log"))?;
    let mut command = on_node(Command::new(name));
    command.current_dir("/run/cluster/pki").args(component.arguments).stdout(log.try_clone()?).stderr(log);
    if name == "kubelet" {
        command.arg(format!("--cgroup-root=/{cgroup}"));
    }
    if let Some(version) = emulate.filter(|_| EMULATING.contains(&name)) {
        command.arg(format!("--emulated-version={version}"));
    }
    let child = command.spawn().with_context(|| format!("could not start {name}"))?;
    eprintln!("{name} started");
    Pid::from_raw(child.id().cast_signed()).context("a child without a process id")
}

fn control_plane_ready() -> bool {
    let mut kubectl = on_node(Command::new("kubectl"));
    Path::new("/run/containerd/containerd.sock").exists()
        && succeeds(kubectl.args(["get", "--request-timeout=2s", "clusterrole", "system:node-proxier"]))
}

/// The environment of a program on the node: none of the caller's (whose proxy settings would lead the apiserver
/// astray), and the cluster's own programs first.
pub fn on_node(mut command: Command) -> Command {
    command
        .env_clear()
        .env("PATH", "/run/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .env("KUBECONFIG", "/run/cluster/admin.kubeconfig");
    command
}
