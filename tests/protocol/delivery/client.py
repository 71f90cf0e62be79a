"""What clients do, and the replicas of the API for them: looking for the next message, acknowledging.

A look notes what the replica knows (`trusted`, `view`), reads the checkpoint, then `main`, then the prefill where that is
not known to be drained, and goes to its tail last. `known` is what had been acknowledged when it was asked for.
"""
from typing import NamedTuple

from . import stream, tail
from .rules import Rule
from .state import Entry, put_client, put_replica


class Look(NamedTuple):
    phase: str
    replica: int
    trusted: int
    known: int
    view: Entry
    pop: int                # the message is removed by being read
    checkpoint: tuple = ()
    page: tuple = ()        # of main, while the prefill decides


class Ack(NamedTuple):
    phase: str
    replica: int
    place: int
    through: bool
    trusted: int = 0
    checkpoint: tuple = ()


def steps(m, s, k, c):
    me = f'client {k} ' if len(s.clients) > 1 else 'client '
    kind = m.clients[k]
    if not c.looks:
        # One that takes part in nothing any more would only repeat itself.
        if not m.goal(s) and (kind == 'stream' or not (c.hands or c.acks)):
            for r, rep in enumerate(s.replicas):
                if kind == 'stream':
                    yield f'{me}opens a stream: at R{r}', looks(s, k, stream.opened(m, s, r, rep, c))
                    continue
                for pop in (0, 1) if kind == 'pop' else (0,):
                    what = 'removes the next message' if pop else 'asks for the next message'
                    phase = 'checkpoint' if m.has(Rule.CHECKPOINT_FIRST) else 'main'
                    yield f'{me}{what}: at R{r}', looks(s, k, Look(phase, r, rep.trusted, s.acked, rep.view, pop))
    elif c.looks[0] == 'stream':
        yield from stream.steps(m, s, k, c, me)
    else:
        yield from look(m, s, k, c.looks, me)
    if c.acks:
        yield from acknowledge(m, s, k, c, me)
    elif c.hands:
        yield from begin_ack(m, s, k, c, me)
    if s.budget.give_up and (c.looks or c.acks or c.hands):
        less = s._replace(budget=s.budget._replace(give_up=s.budget.give_up - 1))
        yield f'{me}gives up and forgets what it has', put_client(less, k, c._replace(looks=(), acks=(), hands=()))
    if s.budget.cut and kind == 'stream' and c.looks:
        less = s._replace(budget=s.budget._replace(cut=s.budget.cut - 1))
        yield f'{me}loses its connection', put_client(less, k, c._replace(looks=()))


def looks(s, k, op):
    return put_client(s, k, s.clients[k]._replace(looks=op))


# ---- the next message
def look(m, s, k, op, me):
    here = f'{me}at R{op.replica} '
    if op.phase == 'checkpoint':
        for note, checkpoint, base in m.readings(s, 'checkpoint', 'look'):
            what = f'{here}reads the checkpoint: {tuple(checkpoint)}{note}'
            if not m.has(Rule.CHECKPOINT_FIRST):
                yield what, looks(base, k, op._replace(phase='tail', checkpoint=checkpoint))
            elif m.snapshot:
                for more, after in saw_main(m, base, k, op._replace(checkpoint=checkpoint), base.main, here):
                    yield f'{more} (checkpoint and main read at once)', after
            else:
                yield what, looks(base, k, op._replace(phase='main', checkpoint=checkpoint))
    elif op.phase == 'main':
        for note, main, base in m.readings(s, 'main', 'look'):
            for what, after in saw_main(m, base, k, op, main, here):
                yield what + note, after
    elif op.phase == 'prefill':
        yield from look_at_prefill(m, s, k, op, here)
    elif op.phase == 'clear':
        # The write says that no copy waits any more.
        batch = ('checkpoint', op.checkpoint, op.checkpoint._replace(clear=1), ())
        after, done = m.apply(s, batch) if not s.main or not m.has(Rule.CLEAR_IF_EMPTY) else (s, False)
        yield (f'{here}makes the checkpoint clear: {"done" if done else "refused"}',
               looks(after, k, op._replace(phase='tail', checkpoint=batch[2])) if done else again(m, s, k, op))
    else:
        yield from look_at_tail(m, s, k, op, here)


def again(m, s, k, op, reread=False):
    """Looks anew; `reread`: by the entry as the leader has it."""
    if reread:
        s = put_replica(s, op.replica, s.replicas[op.replica]._replace(view=s.entry))
    rep = s.replicas[op.replica]
    phase = 'checkpoint' if m.has(Rule.CHECKPOINT_FIRST) else 'main'
    return looks(s, k, Look(phase, op.replica, rep.trusted, op.known, rep.view, op.pop))


def nothing(here, s, k):
    return f'{here}finds nothing now', looks(s, k, ())


def saw_main(m, s, k, op, main, here):
    drained = s.replicas[op.replica].drained == op.view.round
    round = m.round_of(main[0]) if main else 0
    if round > op.view.round:
        yield f'{here}sees main ahead of its view: reads the entry', again(m, s, k, op, reread=True)
    elif main and round == op.view.round and not op.view.done:
        yield nothing(here, s, k)
    elif not drained and round in (0, op.view.round) and (op.view.done or not m.has(Rule.PREFILL_DONE)):
        yield f'{here}reads main: {list(main)}', looks(s, k, op._replace(phase='prefill', page=main))
    else:
        yield from decide(m, s, k, op, main, here)


def look_at_prefill(m, s, k, op, here):
    if not m.has(Rule.VIEW_FIRST):
        op = op._replace(view=s.replicas[op.replica].view)
    if s.prefill not in (0, op.view.round) or (s.prefill and op.view != s.entry):
        yield f'{here}sees a prefill that its view does not know: reads the entry', again(m, s, k, op, reread=True)
    elif s.prefill and op.view.done:
        c = s.clients[k]
        m.before_prefill(s, k)
        yield f'{here}gets the prefill: of round {s.prefill}', put_client(s, k, c._replace(looks=(), hands=(-s.prefill,)))
    elif s.prefill:
        yield nothing(here, s, k)
    else:
        rep = s.replicas[op.replica]
        s = put_replica(s, op.replica, rep._replace(drained=max(rep.drained, op.view.round)))
        yield from decide(m, s, k, op._replace(page=()), op.page, here + 'sees the prefill drained, and ')


def decide(m, s, k, op, main, here):
    """The gate is open for what is in main, and for the tail if that is empty."""
    if not main:
        if not m.has(Rule.CHECKPOINT_FIRST) and not op.checkpoint:
            phase = 'checkpoint'
        else:
            phase = 'clear' if m.clear and not op.checkpoint.clear and m.has(Rule.CLEAR_NEEDED) else 'tail'
        yield f'{here}finds main empty', looks(s, k, op._replace(phase=phase))
        return
    page = [p for p in main if m.round_of(p) == m.round_of(main[0])][:m.page]
    if not op.pop:
        yield f'{here}gets from main: {page}', m.delivered(s, k, page, op.known)
        return
    after, done = m.apply(s, ('remove', page[0]))
    if done:
        yield f'{here}removes and gets from main: {page[0]}', m.delivered(after, k, page[:1], op.known, removed=True)
    else:
        yield f'{here}is late, somebody else removed it: {page[0]}', again(m, s, k, op)


def look_at_tail(m, s, k, op, here):
    rep, checkpoint = s.replicas[op.replica], op.checkpoint
    round = m.settings[checkpoint.setting].round
    if round > op.view.round and m.has(Rule.SAME_ROUND):
        yield f'{here}sees the checkpoint ahead of its view: reads the entry', again(m, s, k, op, reread=True)
        return
    open_ = round and (round == op.view.round or not m.has(Rule.SAME_ROUND))
    open_ = open_ and (rep.drained >= op.view.round or not m.has(Rule.PREFILL_DRAINED))
    trusted = op.trusted if m.has(Rule.PLACE_BEFORE_CHECKPOINT) else rep.trusted
    if (m.clear or m.confirms) and m.has(Rule.CONFIRMED) and checkpoint.place < rep.base:
        # The place came from elsewhere, so the checkpoint may be older than it: only a write shows that it is the last.
        new = m.after(checkpoint, rep.base, clear=1 if m.clear else None)
        if open_ and trusted >= rep.base:
            refused = m.clear and s.main
            after, done = m.apply(s, ('checkpoint', checkpoint, new, ())) if not refused else (s, False)
            yield (f'{here}confirms the checkpoint: {"done" if done else "refused"}',
                   looks(after, k, op._replace(checkpoint=new)) if done else again(m, s, k, op))
        else:
            yield nothing(here, s, k)
        return
    found = tail.behind(m, rep, checkpoint.setting, checkpoint.place, trusted) if open_ else None
    if not found or not found[0]:
        yield nothing(here, s, k)
        return
    places = found[0][:m.page]
    if not op.pop:
        yield f'{here}gets from the tail: {places}', m.delivered(s, k, places, op.known)
        return
    batch = ('checkpoint', checkpoint, m.after(checkpoint, places[0]), ())
    after, done = m.apply(s, batch) if m.has(Rule.POP_WRITES_FIRST) else (s, True)
    if done:
        yield f'{here}removes and gets from the tail: {places[0]}', m.delivered(after, k, places[:1], op.known, removed=True)
    else:
        yield f'{here}is late, the checkpoint has grown', again(m, s, k, op)
    if s.budget.lost:
        lost = m.lose(s._replace(requested=s.requested | 1 << places[0]), batch)
        yield f'{here}removes from the tail, outcome lost: {places[0]}', looks(lost, k, ())


# ---- acknowledgements
def begin_ack(m, s, k, c, me):
    for place in c.hands if m.out_of_order else c.hands[:1]:
        if place < 0:
            rest = tuple(p for p in c.hands if p != place)
            done = s._replace(prefill=0, filled=-place) if s.prefill == -place else s
            yield f'{me}acknowledges the prefill: of round {-place}', put_client(done, k, c._replace(hands=rest))
            continue
        for r, rep in enumerate(s.replicas):
            yield f'{me}acknowledges: {place} at R{r}', put_client(
                s._replace(requested=s.requested | 1 << place), k, c._replace(acks=Ack('checkpoint', r, place, False, rep.trusted)))
    if m.through and c.hands[-1] > 0:
        place = c.hands[-1]
        for r, rep in enumerate(s.replicas):
            yield f'{me}acknowledges through: {place} at R{r}', put_client(
                s._replace(requested=s.requested | c.got & (2 << place) - 1), k,
                c._replace(acks=Ack('checkpoint', r, place, True, rep.trusted)))


def acknowledge(m, s, k, c, me):
    op = c.acks
    here = f'{me}at R{op.replica} '

    def go(op, base=s):
        return put_client(base, k, base.clients[k]._replace(acks=op))

    def answered(base, good):
        """200 or 404: the client goes on."""
        gone = [p for p in c.hands if 0 < p <= op.place] if op.through else [op.place]
        bits = (c.got & (2 << op.place) - 1 if op.through else 1 << op.place) if good else 0
        return put_client(base._replace(acked=base.acked | bits), k, c._replace(acks=(), hands=tuple(p for p in c.hands if p not in gone)))

    def write(what, batch, then):
        """A write whose outcome may stay unknown; `then` gives the state after it."""
        after, done = m.apply(s, batch)
        yield f'{here}{what}, {"done" if done else "refused"}', then(after, done)
        if s.budget.lost:
            yield f'{here}{what}, outcome lost', put_client(m.lose(s, batch), k, c._replace(acks=(), hands=()))

    if op.place == 0:
        yield f'{here}removes the letter', answered(m.apply(s, ('remove', 0))[0], True)
    elif op.phase == 'checkpoint':
        for note, checkpoint, base in m.readings(s, 'checkpoint', 'ack'):
            phase = 'find' if op.place <= checkpoint.place else 'judge'
            yield f'{here}reads the checkpoint: {tuple(checkpoint)}{note}', go(op._replace(phase=phase, checkpoint=checkpoint), base)
    elif op.phase == 'find':
        for note, main, base in m.readings(s, 'main', 'ack'):
            if op.place in main:
                yield f'{here}finds the copy: {op.place}{note}', go(op._replace(phase='remove'), base)
            else:
                yield f'{here}finds no copy: {op.place}{note}', answered(base, not m.has(Rule.MISSING_IS_404))
    elif op.phase == 'remove':
        what = 'purges up to' if op.through else 'removes the copy'
        batch = ('purge' if op.through else 'remove', op.place)
        yield from write(f'{what}: {op.place}', batch, lambda after, _: answered(after, True))
    else:
        yield from judge(m, s, op, here, go, answered, write)


def judge(m, s, op, here, go, answered, write):
    """The place is behind the checkpoint: what lies between decides, and the checkpoint is written."""
    checkpoint = op.checkpoint
    found = tail.behind(m, s.replicas[op.replica], checkpoint.setting, checkpoint.place, op.trusted, op.place)
    known = found and op.place in found[0]
    if not known and m.has(Rule.JUDGED_BY_TAIL):
        if found and s.replicas[op.replica].end >= op.place:
            yield f'{here}knows no such message: {op.place}', answered(s, False)
        elif m.has(Rule.LAGGING_WAITS):
            yield f'{here}waits for its tail', go(op._replace(phase='checkpoint', trusted=s.replicas[op.replica].trusted))
        else:
            yield f'{here}takes what it does not know for acknowledged: {op.place}', answered(s, True)
        return
    between = tuple(found[0][:-1]) if known and not op.through and m.has(Rule.COPIES_BETWEEN) else ()
    over = checkpoint if m.has(Rule.CONDITION) else s.checkpoint
    batch = ('checkpoint', over, m.after(checkpoint, op.place), between)

    def then(after, done):
        if not done:
            return go(op._replace(phase='checkpoint', trusted=s.replicas[op.replica].trusted), after)
        # The number of this very write bounds the purge: copies below it are of lower places, and all that are.
        return go(op._replace(phase='remove'), after) if op.through else answered(after, True)
    yield from write(f'writes the checkpoint: [{op.place}, copies {list(between)}] over {checkpoint.place}', batch, then)
