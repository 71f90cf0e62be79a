"""Messages over one answer that does not end: what was copied first, then on from the tail.

A *run* begins with the checkpoint and with what lies in main, and goes on from the tail behind the last place that it gave. It
ends at a marker, and when the tail no longer reaches back to that place; then the stream begins anew.
"""
from typing import NamedTuple

from search import Bad

from . import tail
from .rules import Rule
from .state import put_client


class Run(NamedTuple):
    kind: str           # 'stream', to tell it from a Look
    replica: int
    phase: str
    trusted: int
    known: int
    given: int          # last place that went out over this connection, or that the client says it has
    top: int            # the same, for the check only
    place: int = 0      # up to here all went out, or was not wanted, or was acknowledged
    setting: int = 0


def opened(m, s, r, rep, c):
    """A client may say what it got last; else all comes again that is not acknowledged."""
    given = c.got.bit_length() - 1 if m.resumes and c.got else 0
    return Run('stream', r, 'checkpoint', rep.trusted, s.acked, given, given)


def steps(m, s, k, c, me):
    run, rep = c.looks, s.replicas[c.looks.replica]
    here = f'{me}(stream at R{run.replica}) '

    def go(op, base=s):
        return put_client(base, k, base.clients[k]._replace(looks=op))

    def give(places, op, known):
        again = [p for p in places if p <= run.top]
        if again:
            raise Bad(f'{again} is given twice over one connection')
        given = m.delivered(s, k, places, known)
        return put_client(given, k, given.clients[k]._replace(looks=op))

    each_page = m.has(Rule.PAGE_READS_CHECKPOINT)
    given = run.given if m.has(Rule.STREAM_KEEPS_PLACE) else 0
    anew = Run('stream', run.replica, 'checkpoint', rep.trusted, s.acked, given, run.top)
    if run.phase == 'checkpoint':
        for note, checkpoint, base in m.readings(s, 'checkpoint', 'look'):
            # What was copied up to the last place has been given out already, or was acknowledged.
            skips = checkpoint.place <= run.given or not m.has(Rule.MAIN_BEFORE_TAIL)
            op = run._replace(phase='tail' if skips else 'main', place=max(checkpoint.place, run.given), setting=checkpoint.setting)
            yield f'{here}reads the checkpoint: {tuple(checkpoint)}{note}', go(op, base)
    elif run.phase == 'main':
        page = [p for p in s.main if p > run.given][:m.page]
        if page:
            op = run._replace(given=page[-1], top=page[-1], place=max(run.place, page[-1]))
            yield f'{here}gets from main: {page}', give(page, op, s.acked)
        else:
            yield f'{here}has all of main', go(run._replace(phase='tail'))
    else:
        found = tail.behind(m, rep, run.setting, run.place, run.trusted)
        if found is None and not m.has(Rule.STREAM_NOTICES_GAP):
            found = m.scan(run.setting, rep.base, rep.end)
        if found is None:
            yield f'{here}has lost its place: begins anew', go(anew)
            return
        wanted, stop = found
        if not m.has(Rule.STREAM_STOPS):
            wanted = [p for p in range(max(run.place, rep.base) + 1, rep.end + 1) if m.wants(m.log[p - 1], run.setting)]
        if wanted:
            page = wanted[:m.page]
            new = dict(given=page[-1], top=page[-1])
            known = run.known if each_page or not m.page_is_begun else s.acked
            yield f'{here}gets from the tail: {page}', give(page, anew._replace(**new) if each_page else run._replace(place=page[-1], **new), known)
        elif stop:
            yield f'{here}is at a marker: begins anew', go(anew)
