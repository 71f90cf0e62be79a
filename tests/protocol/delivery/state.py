"""What a state consists of."""
from typing import NamedTuple


class Checkpoint(NamedTuple):
    """The number of the message in NATS is modelled by the value: no value comes again."""
    place: int      # up to here all that is wanted was copied or acknowledged
    setting: int    # which setting is in effect behind it
    clear: int      # 1: no copy waits (only where `World.clear`)


class Setting(NamedTuple):
    """What a marker puts into effect."""
    topics: str
    round: int      # 0: not active


class Position(NamedTuple):
    """The dispatchers' value in KV."""
    place: int      # the log is purged up to here
    second: int     # Q: nothing is wanted up to here behind the checkpoint...
    behind: int     # ...unless our lane is listed


class Entry(NamedTuple):
    """The subscription's entry in KV, and what a replica believes of it."""
    round: int
    done: int


class Replica(NamedTuple):
    trusted: int    # nothing is wanted behind the checkpoint up to here: from the position
    base: int       # in memory are the entries behind this...
    end: int        # ...up to this...
    missing: int    # ...but for these (mutants only)
    view: Entry
    drained: int    # round whose prefill was seen drained


class Dispatcher(NamedTuple):
    read: int
    base: int           # where it began
    checkpoint: tuple   # as it knows it; (): not at all


class Client(NamedTuple):
    looks: tuple    # what it waits for: (phase, replica, …), see client.py and stream.py
    acks: tuple
    hands: tuple    # what it has, and has not acknowledged
    got: int        # all that it has ever got


class Budget(NamedTuple):
    """How often what is not a matter of schedule may happen."""
    lost: int = 0       # the outcome of a write is unknown: it was not done, and may be done later
    give_up: int = 0    # a client gives up waiting, or forgets what it has
    cut: int = 0        # a stream loses its connection, and its client keeps what it has
    drop: int = 0       # a replica drops the oldest entry in memory
    letter: int = 0     # a dead letter is written to main (without LETTERS_IN_LOG)
    stale: int = 0      # a read is answered by a leader that was deposed
    restart: int = 0    # a replica is started again
    ask: int = 0        # the prefill is asked for again: the last marker of the log is its


class State(NamedTuple):
    end: int            # the log's end
    purged: int
    position: Position
    checkpoint: Checkpoint
    main: tuple         # places of the copies in the order of their numbers; 0: a letter
    replicas: tuple
    dispatchers: tuple
    clients: tuple
    late: tuple         # writes with an unknown outcome
    requested: int      # an acknowledgement was asked for
    acked: int          # and answered with 200
    letters: int        # dead letters recorded
    old: int            # up to here the bound has passed
    entry: Entry
    prefill: int        # round of which a message waits; 0: none
    filled: int         # last round whose prefill was read and acknowledged
    budget: Budget
    past: tuple         # former pairs of checkpoint and main, while there are stale reads


def other(op):
    """What a client does, at the other one of two replicas."""
    return op._replace(replica=1 - op.replica) if op else op


def put_client(s, k, c):
    clients = list(s.clients)
    clients[k] = c
    return s._replace(clients=tuple(clients))


def put_replica(s, r, replica):
    replicas = list(s.replicas)
    replicas[r] = replica
    return s._replace(replicas=tuple(replicas))


def places_of(bits):
    return [place for place in range(bits.bit_length()) if bits >> place & 1]
