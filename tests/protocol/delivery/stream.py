"""Messages over one answer that does not end: what was copied first, then on from the tail.

A *run* begins as a look for the next message does: with the checkpoint, main, and the prefill where that is not known to be
drained. It goes on from the tail, behind the last place that it gave, and reads the checkpoint for each page. It ends
at a marker, and when the tail no longer reaches back to that place; then the stream begins anew.
"""
from typing import NamedTuple

from search import Bad

from . import tail
from .rules import Rule
from .state import Entry, put_client, put_replica


class Run(NamedTuple):
    kind: str           # 'stream', to tell it from a Look
    replica: int
    phase: str
    trusted: int
    known: int
    view: Entry
    given: int          # last place that went out over this connection, or that the client says it has
    top: int            # the same, for the check only
    open: int = -1      # the setting under which it may go on from its tail
    place: int = 0      # up to here all went out, or was not wanted, or was acknowledged
    setting: int = 0
    page: tuple = ()    # of main, while the prefill decides


def opened(m, s, r, rep, c):
    """A client may say what it got last; else all comes again that is not acknowledged."""
    given = c.got.bit_length() - 1 if m.resumes and c.got else 0
    return Run('stream', r, 'checkpoint', rep.trusted, s.acked, rep.view, given, given)


def steps(m, s, k, c, me):
    run = c.looks
    here = f'{me}(stream at R{run.replica}) '
    if run.phase == 'checkpoint':
        for note, checkpoint, base in m.readings(s, 'checkpoint', 'look'):
            place = max(checkpoint.place, run.given)
            op = run._replace(place=place, setting=checkpoint.setting)
            # What was copied up to the last place has been given out already, or was acknowledged.
            goes_on = checkpoint.place <= run.given and (run.open == op.setting or not m.has(Rule.STREAM_CHECKS_EPOCH))
            phase = 'tail' if goes_on or not m.has(Rule.MAIN_BEFORE_TAIL) else 'main'
            yield f'{here}reads the checkpoint: {tuple(checkpoint)}{note}', go(base, k, op._replace(phase=phase))
    elif run.phase == 'main':
        yield from saw_main(m, s, k, run, tuple(p for p in s.main if p > run.given), here)
    elif run.phase == 'prefill':
        yield from look_at_prefill(m, s, k, run, here)
    else:
        yield from read_on(m, s, k, run, here)


def go(s, k, op):
    return put_client(s, k, s.clients[k]._replace(looks=op))


def anew(m, s, run, reread=False):
    """The run from its next page on, or the next run; `reread`: by the entry as the leader has it."""
    if reread:
        s = put_replica(s, run.replica, s.replicas[run.replica]._replace(view=s.entry))
    rep = s.replicas[run.replica]
    given = run.given if m.has(Rule.STREAM_KEEPS_PLACE) else 0
    return s, Run('stream', run.replica, 'checkpoint', rep.trusted, s.acked, rep.view, given, run.top, run.open)


def begins_anew(m, s, k, run, what, reread=False):
    s, op = anew(m, s, run, reread)
    return what + ': begins anew', go(s, k, op._replace(open=-1))


def give(m, s, k, places, op, known):
    again = [p for p in places if p <= op.top]
    if again:
        raise Bad(f'{again} is given twice over one connection')
    given = m.delivered(s, k, places, known)
    return go(given, k, op._replace(given=places[-1], top=places[-1]))


def saw_main(m, s, k, run, main, here):
    round = m.round_of(main[0]) if main else 0
    drained = s.replicas[run.replica].drained == run.view.round
    if round > run.view.round:
        yield begins_anew(m, s, k, run, f'{here}sees main ahead of its view', reread=True)
    elif main and round == run.view.round and not run.view.done:
        yield begins_anew(m, s, k, run, f'{here}finds nothing now')
    elif not drained and round in (0, run.view.round) and run.view.done:
        yield f'{here}reads main: {list(main)}', go(s, k, run._replace(phase='prefill', page=main, known=s.acked if main else run.known))
    else:
        yield from decide(m, s, k, run, main, s.acked, here)


def decide(m, s, k, run, main, known, here):
    """The gate is open. `known` was acknowledged when main was read."""
    if main:
        page = [p for p in main if m.round_of(p) == m.round_of(main[0])][:m.page]
        op = run._replace(phase='main', page=(), place=max(run.place, page[-1]))
        yield f'{here}gets from main: {page}', give(m, s, k, page, op, known)
    else:
        yield f'{here}has all of main', go(s, k, run._replace(phase='tail', page=()))


def look_at_prefill(m, s, k, run, here):
    c, rep = s.clients[k], s.replicas[run.replica]
    if s.prefill and run.view != s.entry:
        yield begins_anew(m, s, k, run, f'{here}sees a prefill that its view does not know', reread=True)
    elif s.prefill:
        m.before_prefill(s, k)
        s, op = anew(m, s, run)
        hands = c.hands if -s.prefill in c.hands else c.hands + (-s.prefill,)
        yield f'{here}gets the prefill: of round {s.prefill}', put_client(s, k, c._replace(looks=op._replace(open=-1), hands=hands))
    else:
        s = put_replica(s, run.replica, rep._replace(drained=max(rep.drained, run.view.round)))
        yield from decide(m, s, k, run, run.page, run.known, here + 'sees the prefill drained, and ')


def read_on(m, s, k, run, here):
    rep = s.replicas[run.replica]
    round = m.settings[run.setting].round
    if run.open != run.setting and m.has(Rule.STREAM_CHECKS_EPOCH):
        if round > run.view.round:
            yield begins_anew(m, s, k, run, f'{here}sees the checkpoint ahead of its view', reread=True)
            return
        if not round or round < run.view.round or rep.drained < run.view.round:
            yield begins_anew(m, s, k, run, f'{here}waits for the dispatcher or the prefill')
            return
    run = run._replace(open=run.setting)
    found = tail.behind(m, rep, run.setting, run.place, run.trusted)
    if found is None and not m.has(Rule.STREAM_NOTICES_GAP):
        found = m.scan(run.setting, rep.base, rep.end)
    if found is None:
        yield begins_anew(m, s, k, run, f'{here}has lost its place')
        return
    wanted, stop = found
    if not m.has(Rule.STREAM_STOPS):
        wanted = [p for p in range(max(run.place, rep.base) + 1, rep.end + 1) if m.wants(m.log[p - 1], run.setting)]
    if wanted:
        page = wanted[:m.page]
        each_page = m.has(Rule.PAGE_READS_CHECKPOINT)
        known = run.known if each_page or not m.page_is_begun else s.acked
        op = anew(m, s, run)[1] if each_page else run._replace(place=page[-1])
        yield f'{here}gets from the tail: {page}', give(m, s, k, page, op, known)
    elif stop:
        yield begins_anew(m, s, k, run, f'{here}is at a marker')
    elif m.has(Rule.PAGE_READS_CHECKPOINT):
        yield f'{here}has all of its tail', go(s, k, anew(m, s, run)[1])
