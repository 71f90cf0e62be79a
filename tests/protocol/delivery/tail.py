"""What a replica of the API has in memory of the log, and what it may conclude from it."""
from .rules import Rule
from .state import put_replica


def trusted(position):
    """Up to where nothing is wanted behind any checkpoint that is read from now on."""
    return position.place if position.behind else max(position.place, position.second)


def begin(rep, position):
    """The position is read first, then the log from there on."""
    place = position.place
    return rep._replace(trusted=max(rep.trusted, trusted(position)), base=place, end=place, missing=0)


def steps(m, s, r, rep):
    def put(new, base=s):
        return put_replica(base, r, new)
    me = f'R{r} '
    if rep.end < s.purged:
        if m.has(Rule.GAP_IS_NOTICED):
            yield f'{me}has a gap: begins at the position {s.position.place}', put(begin(rep, s.position))
        else:
            gone = (2 << s.purged) - (2 << rep.end)
            yield f'{me}does not notice a gap: {rep.end + 1} to {s.purged}', put(rep._replace(end=s.purged, missing=rep.missing | gone))
    elif rep.end < s.end:
        yield f'{me}reads the log: {rep.end + 1}', put(rep._replace(end=rep.end + 1))
    if s.budget.restart and rep.end:
        fresh = rep._replace(trusted=0, view=s.entry, drained=0)
        yield f'{me}starts again: at {s.position.place}', put(
            begin(fresh, s.position), s._replace(budget=s.budget._replace(restart=s.budget.restart - 1)))
    if s.budget.drop and rep.base < rep.end:
        less = s._replace(budget=s.budget._replace(drop=s.budget.drop - 1))
        if m.has(Rule.DROPPED_IS_UNKNOWN):
            yield f'{me}drops the oldest entry: {rep.base + 1}', put(rep._replace(base=rep.base + 1), less)
        else:
            oldest = next((p for p in range(rep.base + 1, rep.end + 1) if not rep.missing >> p & 1), 0)
            yield f'{me}drops the oldest entry: {oldest}', put(rep._replace(missing=rep.missing | 1 << oldest), less)
    if m.second and trusted(s.position) > rep.trusted:
        yield f'{me}hears of the position: {s.position}', put(rep._replace(trusted=trusted(s.position)))
    if rep.view != s.entry:
        yield f'{me}hears of the entry: {s.entry}', put(rep._replace(view=s.entry))


def behind(m, rep, setting, place, trusted_place, to=99):
    """What is wanted in the tail behind a place up to the first stop, and that stop; None: the tail does not reach back to
    the place, so nothing is known. `trusted_place`: nothing is wanted between the place and it."""
    if max(place, trusted_place) < rep.base:
        return None
    wanted, stop = m.scan(setting, max(place, rep.base), min(rep.end, to), rep.missing)
    if stop and not m.has(Rule.READER_STOPS):
        wanted = [p for p in range(max(place, rep.base) + 1, min(rep.end, to) + 1)
                  if not rep.missing >> p & 1 and m.wants(m.log[p - 1], setting)]
    return wanted, stop
