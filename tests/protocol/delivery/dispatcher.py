"""Dispatchers: any number of them. They copy what waits, write markers, and move the position."""
from .rules import Rule
from .state import Dispatcher, Position


def steps(m, s):
    if s.purged < s.position.place:
        yield f'log: purged up to {s.position.place}', s._replace(purged=s.position.place)
    seen = set()
    for i, d in enumerate(s.dispatchers):
        if d not in seen:       # two that know the same do the same
            seen.add(d)
            yield from one(m, s, i, d)


def one(m, s, i, d):
    def put(new, base=s):
        l = list(base.dispatchers)
        l[i] = new
        return base._replace(dispatchers=tuple(l))
    me = f'D{i} '
    if d.read < s.purged:
        kept = () if m.has(Rule.GAP_FORGETS) else d.checkpoint
        yield f'{me}has a gap: begins at the position {s.position.place}', put(Dispatcher(s.position.place, s.position.place, kept))
    elif d.read < s.end:
        yield f'{me}reads the log: {d.read + 1}', put(d._replace(read=d.read + 1))
    for note, checkpoint, base in m.readings(s, 'checkpoint', 'copy'):
        if checkpoint == d.checkpoint:
            continue
        # One that is older than the beginning is written anew, over itself: refused if it is not the last.
        if checkpoint != s.checkpoint and checkpoint.place < d.base and m.has(Rule.BEGINNING_CONFIRMED):
            continue
        yield f'{me}reads the checkpoint: {tuple(checkpoint)}{note}', put(d._replace(checkpoint=checkpoint), base)
    if not d.checkpoint:
        return
    c = d.checkpoint
    wanted, stop = m.scan(c.setting, max(c.place, d.base), d.read)

    def write(what, new, copies):
        over = c if m.has(Rule.CONDITION) else s.checkpoint
        batch = ('checkpoint', over, new, copies)
        after, done = m.apply(s, batch)
        yield (f'{me}{what}: [{new.place}, copies {list(copies)}] over {c.place}, {"done" if done else "refused"}',
               put(d._replace(checkpoint=after.checkpoint if done else ()), after))
        if s.budget.lost:
            yield f'{me}{what}, outcome lost: [{new.place}, copies {list(copies)}] over {c.place}', put(d._replace(checkpoint=()), m.lose(s, batch))

    for n, place in enumerate(wanted, 1):
        # Where a marker waits or a prefill is open nothing is delayed.
        if place <= s.old or stop or not s.entry.done:
            yield from write('copies', m.after(c, place), tuple(wanted[:n]))
    if stop and (not wanted or not m.has(Rule.BELOW_FIRST)):
        if m.log[stop - 1] == 'M':
            yield from write('puts a marker into effect', m.after(c, stop)._replace(setting=c.setting + 1), ())
        elif s.letters >> stop & 1 or not m.has(Rule.NOTICE_RECORDED):
            yield from write('passes a notice', m.after(c, stop), ())
        else:
            yield f'{me}records a dead letter: {stop}', s._replace(letters=s.letters | 1 << stop)
    yield from move(m, s, me, d, wanted, stop)


def move(m, s, me, d, wanted, stop):
    """The position, by compare-and-set: below the first entry that is not known to be covered."""
    holds = (wanted if m.has(Rule.UNSEEN_HOLDS) else []) + ([stop] if stop and m.has(Rule.MARKER_HOLDS) else [])
    place = min(holds) - 1 if holds else d.read
    if not m.second:
        if place > s.position.place:
            yield f'{me}moves the position: {place}', s._replace(position=Position(place, 0, 0))
        return
    # Another lane may hold the first place. The second one goes on, and says whether ours is behind.
    behind = int(bool(wanted or stop)) if m.has(Rule.LANE_IS_LISTED) else 0
    new = Position(max(s.position.place, min(place, m.held)), max(s.position.second, d.read), behind)
    if d.read >= s.position.second and new != s.position:
        yield f'{me}moves the position: {tuple(new)}', s._replace(position=new)
