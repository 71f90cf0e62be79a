"""What is stored, what is true, and what is checked in every state.

One queue and its event log. The log is written down before: one character an entry, and its place is its number.

    a b     an event that is wanted under the topics a, b      x     an event that nobody here wants
    c       an event that is wanted under both                 L     a dead letter sent again: addressed to this queue
    M       our marker: the next of `settings` is in effect    N     the notice of an event that is too large: the
    o       a marker of ours that is older than those                dispatcher makes it a dead letter

It is there from the start, and those who read it lag as much as they like. Each request to NATS is one step, and anybody
may stop before any step for ever or for a while: so crashes and pauses are schedules and need no steps of their own.
Sets of places are numbers, one bit a place.
"""
from dataclasses import dataclass, field

from search import Bad

from . import client, dispatcher, tail
from .state import Budget, Checkpoint, Client, Dispatcher, Entry, Position, Replica, Setting, State, other, places_of, put_client


@dataclass(frozen=True)
class World:
    """One scenario."""
    log: str = 'axMb'
    settings: tuple = (Setting('a', 1), Setting('b', 1))
    without: frozenset = frozenset()    # rules that are left out
    replicas: int = 1
    dispatchers: int = 1
    clients: tuple = ('next',)          # each `next`, `pop` or `stream`
    budget: Budget = Budget()
    page: int = 1                       # messages at once
    out_of_order: bool = False          # clients acknowledge in any order
    through: bool = False               # and up to one
    snapshot: bool = False              # checkpoint and main are read at once
    delays: bool = False                # copies are made only when the bound has passed
    clear: bool = False                 # the checkpoint says whether copies wait
    confirms: bool = False              # a checkpoint older than the tail's beginning is confirmed (`clear` does so, too)
    held: int = 99                      # another lane holds the position here; with the second place
    second: bool = False
    page_is_begun: bool = True          # of a stream each page counts as one read, else the whole run (P3)
    stale_reads: tuple = (('checkpoint', 'look'), ('main', 'look'), ('checkpoint', 'ack'), ('main', 'ack'))
    resumes: bool = False               # a client that connects again says what it got last
    repeats: bool = False               # P3 is not checked: who reads from a deposed leader gets repeats
    prefill: str = 'drained'            # at the start; `done`: drained, and no replica knows it yet; `pending`
    wanted: int = field(init=False)     # places of all that is to be delivered
    stops: tuple = field(init=False)    # marker and notices
    setting_at: tuple = field(init=False)

    def __post_init__(self):
        setting, wanted, at = 0, 0, [0]
        for place, kind in enumerate(self.log, 1):
            if self.wants(kind, setting):
                wanted |= 1 << place
            setting += kind == 'M'
            at.append(setting)
        for name, value in (('wanted', wanted), ('setting_at', tuple(at)),
                            ('stops', tuple(p for p, kind in enumerate(self.log, 1) if kind in 'MN'))):
            object.__setattr__(self, name, value)

    # ---- the log
    def has(self, rule):
        return not self.without or rule not in self.without

    def wants(self, kind, setting):
        return kind == 'L' or kind in self.settings[setting].topics or (kind == 'c' and self.settings[setting].round > 0)

    def round_of(self, place):
        """The round that an event belongs to."""
        return self.settings[self.setting_at[place]].round

    def scan(self, setting, after, to, missing=0):
        """What is wanted in (after, to] before the first stop, and that stop; 0: there is none."""
        wanted = []
        for place in range(after + 1, to + 1):
            kind = self.log[place - 1]
            if kind in 'MN':
                return wanted, place
            if not missing >> place & 1 and self.wants(kind, setting):
                wanted.append(place)
        return wanted, 0

    # ---- the start
    def initial(self):
        first = self.settings[0].round
        entry = Entry(self.settings[0].round or 1, int(self.prefill != 'pending'))
        end = len(self.log)
        if self.budget.ask:
            end = self.log.rindex('M')
        checkpoint = Checkpoint(0, 0, 1)
        return State(
            end=end, purged=0, position=Position(0, 0, 0), checkpoint=checkpoint, main=(),
            replicas=(Replica(0, 0, 0, 0, entry, first if self.prefill == 'drained' else 0),) * self.replicas,
            dispatchers=(Dispatcher(0, 0, ()),) * self.dispatchers,
            clients=(Client((), (), (), 0),) * len(self.clients),
            late=(), requested=0, acked=0, letters=0, old=0 if self.delays else len(self.log), entry=entry, prefill=0,
            filled=first if entry.done else 0, budget=self.budget,
            past=((checkpoint, ()),) if self.budget.stale else ())

    # ---- writes to the queue, each ordered by its leader
    def apply(self, s, write):
        """The state after a write, and whether it was done."""
        kind = write[0]
        if kind == 'checkpoint':    # an atomic batch: a checkpoint, over the one it was judged by, and copies
            _, over, new, copies = write
            if s.checkpoint != over:
                return s, False
            return s._replace(checkpoint=new._replace(clear=0) if copies else new, main=s.main + copies), True
        if kind == 'remove':        # one copy by its number
            return s._replace(main=tuple(p for p in s.main if p != write[1])), write[1] in s.main
        # A purge up to the number of the last copy at or below a place.
        below = [i for i, p in enumerate(s.main) if 0 < p <= write[1]]
        return (s._replace(main=s.main[below[-1] + 1:]) if below else s), bool(below)

    def after(self, checkpoint, place, clear=None):
        return Checkpoint(place, checkpoint.setting, checkpoint.clear if clear is None else clear)

    def lose(self, s, write):
        """The outcome of a write stays unknown, and it may still be done."""
        late = tuple(sorted(set(s.late) | {write}, key=repr))
        return s._replace(late=late, budget=s.budget._replace(lost=s.budget.lost - 1))

    def readings(self, s, what, by):
        """What a read of `checkpoint` or `main` by a `look`, an `ack` or a dispatcher (`copy`) may give: (note, value, state after it)."""
        now = getattr(s, what)
        yield '', now, s
        if s.budget.stale and (what, by) in self.stale_reads:
            less = s._replace(budget=s.budget._replace(stale=s.budget.stale - 1))
            if not less.budget.stale:
                less = less._replace(past=())
            for value in {pair[what == 'main'] for pair in s.past}:
                if value != now:
                    yield ' (STALE)', value, less

    # ---- all steps
    def steps(self, s):
        for what, after in self.all_steps(s):
            yield what, self.canonical(after)

    def all_steps(self, s):
        if s.end < len(self.log) and (not s.budget.ask):
            yield 'log: grows', s._replace(end=len(self.log))
        if s.budget.ask:
            last = self.settings[-1].round
            yield f'prefill: asked for again, round {last}', s._replace(
                entry=Entry(last, 0), prefill=0, budget=s.budget._replace(ask=0))
        if s.budget.letter:
            yield 'letter: written to main', s._replace(main=s.main + (0,), budget=s.budget._replace(letter=0))
        if s.old < s.end and self.delays:
            yield f'time: the bound passes for {s.old + 1}', s._replace(old=s.old + 1)
        for write in s.late:
            after, done = self.apply(s, write)
            rest = tuple(w for w in s.late if w != write)
            yield f'a lost write lands: {write} ({"done" if done else "refused"})', after._replace(late=rest)
        yield from self.engine(s)
        for r, replica in enumerate(s.replicas):
            yield from tail.steps(self, s, r, replica)
        yield from dispatcher.steps(self, s)
        for k, c in enumerate(s.clients):
            yield from client.steps(self, s, k, c)

    def engine(self, s):
        """The prefill: it begins when the checkpoint has its round, which is the seam's condition."""
        if not s.entry.done and s.filled < s.entry.round:
            if s.prefill == s.entry.round:
                yield 'prefill: recorded as done', s._replace(entry=s.entry._replace(done=1))
            elif self.settings[s.checkpoint.setting].round >= s.entry.round:
                yield 'prefill: filled and sealed', s._replace(prefill=s.entry.round)

    def canonical(self, s):
        """Dispatchers are alike, and so are replicas, and clients of one kind."""
        if self.dispatchers > 1:
            s = s._replace(dispatchers=tuple(sorted(s.dispatchers)))
        if self.replicas == 2:
            first, second = s.replicas
            if first > second or (first == second and next((op.replica for c in s.clients for op in c[:2] if op), 0)):
                clients = tuple(c._replace(looks=other(c.looks), acks=other(c.acks)) for c in s.clients)
                s = s._replace(replicas=(second, first), clients=clients)
        if len(self.clients) > 1 and len(set(self.clients)) == 1:
            s = s._replace(clients=tuple(sorted(s.clients)))
        if s.past and (s.checkpoint, s.main) not in s.past:
            s = s._replace(past=tuple(sorted(s.past + ((s.checkpoint, s.main),))))
        return s

    # ---- what is promised
    def delivered(self, s, k, places, known, removed=False):
        """A client gets live messages that it had asked for when `known` were acknowledged."""
        c = s.clients[k]
        got = c.got
        for place in places:
            bit = 1 << place
            if not place:
                continue
            if known & bit and not self.repeats:
                raise Bad(f'P3: {place} is delivered by a read that began after its acknowledgement was answered')
            if not self.wanted & bit:
                raise Bad(f'{place} is delivered, and nobody asked for it')
            again = got & bit and (self.repeats or not known & bit)     # what it had not acknowledged yet
            if got >= bit << 1 and not again:
                raise Bad(f'P2: {place} is delivered after {got.bit_length() - 1}')
            waits = self.wanted & (bit - 1) & ~s.requested & ~got
            if waits:
                raise Bad(f'P2: {place} is delivered, but {bin(waits)[::-1].index("1")} waits and was never delivered')
            if self.round_of(place) > s.filled:
                raise Bad(f'P2: {place} is delivered before the prefill of its round')
            got |= bit
        bits = sum(1 << place for place in places if place)
        if removed:
            return put_client(s._replace(requested=s.requested | bits, acked=s.acked | bits), k, c._replace(looks=(), got=got))
        return put_client(s, k, c._replace(looks=(), hands=c.hands + tuple(places), got=got))

    def before_prefill(self, s, k):
        """A client gets the prefill: what belongs to earlier rounds has to have come before."""
        earlier = sum(1 << p for p in range(len(self.log) + 1) if self.wanted >> p & 1 and self.round_of(p) < s.prefill)
        if earlier & ~s.requested & ~s.clients[k].got:
            raise Bad('P2: the prefill is delivered, and an event of an earlier round waits')

    def check(self, s):
        copied = sum(1 << place for place in s.main if place)
        below = (2 << s.checkpoint.place) - 1
        lost = self.wanted & below & ~copied & ~s.requested
        if lost:
            raise Bad(f'P1: {places_of(lost)} is lost: the checkpoint is past it, there is no copy, nobody acknowledged it')
        purged = self.wanted & ((2 << s.purged) - 1) & ~below
        if purged:
            raise Bad(f'P4: {places_of(purged)} is purged from the log, the checkpoint is at {s.checkpoint.place}')
        for stop in self.stops:
            if s.checkpoint.place < stop <= s.purged:
                raise Bad(f'P4: the marker or notice {stop} is purged, the checkpoint is at {s.checkpoint.place}')
            if self.log[stop - 1] == 'N' and stop <= s.checkpoint.place and not s.letters >> stop & 1:
                raise Bad(f'P1: the checkpoint is past the notice {stop}, which is no dead letter')
        if s.checkpoint.setting != self.setting_at[s.checkpoint.place]:
            raise Bad('P1: the checkpoint is past a marker that never was in effect')
        if copied & ~self.wanted:
            raise Bad(f'{places_of(copied & ~self.wanted)} is copied, and nobody asked for it')
        if self.budget.letter and not s.budget.letter and 0 not in s.main and not s.requested & 1:
            raise Bad('P1: a letter is lost, which nobody has read')

    def goal(self, s):
        """All is delivered and acknowledged, and nothing waits."""
        return (s.end == len(self.log) and not self.wanted & ~(s.acked | s.requested) and not s.main
                and not self.wanted >> (s.checkpoint.place + 1) and not s.prefill and s.filled == self.settings[-1].round
                and all(not c.hands and not c.acks and (not c.looks or c.looks[0] == 'stream') for c in s.clients))

    def pruned(self, s):
        return False
