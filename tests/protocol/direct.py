#!/usr/bin/env python3
"""Live events that are read from the log: searches the design, and each rule left out (README.md, part 6).

Run:  python3 direct.py             every scenario, every rule left out, what is known to remain (3 minutes, 1 core)
      python3 direct.py --quick     the same with the small scenarios only (20 seconds)
      python3 direct.py --mutants   only the rules that are left out, and what is known to remain
      python3 direct.py --long      the large scenarios, of which some are cut
      add -v for traces, or words that the names of scenarios hold

Ends with 1 if a scenario is broken, or a rule that is left out breaks nothing; with 2 if a scenario was cut at the limit of its
states, so that it says nothing about what lies beyond.
"""
import sys
import time
from typing import NamedTuple

from delivery.rules import Rule
from delivery.state import Budget, Setting
from delivery.world import World
from search import explore

LIMIT = 500_000
LONG_LIMIT = 1_500_000

ONE = (Setting('a', 1),)
TOPICS = (Setting('a', 1), Setting('b', 1))     # a marker changes the topics
ROUNDS = (Setting('a', 1), Setting('b', 2))     # a marker begins a round
FIRST = (Setting('', 0), Setting('b', 1))       # the marker of the registration

DIRECT = ('gets from the tail', 'gets from main', 'copies')


class Scenario(NamedTuple):
    name: str
    world: dict
    sees: tuple = DIRECT    # steps that have to happen, or the scenario shows nothing
    size: str = 'quick'     # or `whole`, `long`


class Mutant(NamedTuple):
    rule: Rule
    breaks: str             # how the violation begins
    world: dict


class Remains(NamedTuple):
    """What the design does not promise: found, so that nobody thinks it would."""
    name: str
    breaks: str
    world: dict


def w(log='axMb', settings=TOPICS, **more):
    return dict(log=log, settings=settings, **more)


def B(**k):
    return Budget(**k)


SCENARIOS = [
    Scenario('no dispatcher, a client that keeps up', w('axaa', ONE, dispatchers=0, replicas=2), ('gets from the tail',)),
    Scenario('next', w()),
    Scenario('next, copies at once and as late as may be', w(delays=True)),
    Scenario('next, checkpoint and main read at once', w('aMb', snapshot=True, replicas=2)),
    Scenario('a marker that is older, and does not count', w('aoa', ONE)),
    Scenario('a notice of an event that is too large', w('aNa', ONE), DIRECT + ('records a dead letter', 'passes a notice')),
    Scenario('two dispatchers', w('aa', ONE, dispatchers=2)),
    Scenario('three dispatchers', w('a', ONE, dispatchers=3)),
    Scenario('out of order, several at once', w('aaa', ONE, page=3, out_of_order=True)),
    Scenario('through, a letter in the log', w('aLMb', page=2, through=True), DIRECT + ('acknowledges through', 'purges up to')),
    Scenario('removed by being read', w('aa', ONE, clients=('pop',), budget=B(lost=1)),
             DIRECT + ('removes and gets from the tail', 'removes and gets from main')),
    Scenario('registration', w('aMb', FIRST, prefill='pending'), DIRECT + ('gets the prefill',)),
    Scenario('a new round, and a replica that knows nothing', w('aMb', ROUNDS, prefill='done', budget=B(ask=1)),
             DIRECT + ('gets the prefill', 'sees the prefill drained, and finds main empty')),
    Scenario('stream', w('aMb', clients=('stream',))),
    Scenario('stream, a new round', w('aMb', ROUNDS, clients=('stream',), budget=B(ask=1)),
             DIRECT + ('gets the prefill', 'sees the prefill drained, and has all of main'), size='whole'),
    Scenario('stream that connects again', w('aa', ONE, clients=('stream',), budget=B(cut=1))),
    Scenario('stream that says what it got, checkpoint read once a run',
             w('aa', ONE, clients=('stream',), budget=B(cut=1), resumes=True, without={Rule.PAGE_READS_CHECKPOINT})),
    Scenario('the second place', w('axa', ONE, second=True, held=0, budget=B(drop=2))),
    Scenario('clear, a stale read', w('aa', ONE, clear=True, repeats=True, budget=B(stale=1)),
             DIRECT + ('makes the checkpoint clear',)),
    Scenario('clear, two stale reads', w('aa', ONE, clear=True, repeats=True, budget=B(stale=2)),
             DIRECT + ('confirms the checkpoint',)),
    Scenario('stale checkpoints of dispatchers', w(
        'Mb', dispatchers=2, budget=B(stale=1), stale_reads=(('checkpoint', 'copy'),)), size='whole'),
    Scenario('stale checkpoints and a marker', w(
        'aMab', budget=B(stale=1), stale_reads=(('checkpoint', 'look'),), repeats=True, confirms=True)),
    Scenario('stale reads of acknowledgements', w(
        'aa', ONE, budget=B(stale=2), stale_reads=(('main', 'ack'), ('checkpoint', 'ack')), page=2, out_of_order=True)),
    Scenario('stale checkpoints only repeat where there is no marker', w(
        'aa', ONE, budget=B(stale=1), stale_reads=(('checkpoint', 'look'),), repeats=True)),

    Scenario('next, 2 replicas', w(replicas=2), size='whole'),
    Scenario('two clients, out of order', w('aa', ONE, page=2, out_of_order=True, clients=('next', 'next')), size='whole'),
    Scenario('two clients, through', w('aa', ONE, page=2, through=True, clients=('next', 'next')),
             DIRECT + ('acknowledges through',), size='whole'),
    Scenario('a stream and a client that removes by reading, a replica that knows nothing', w(
        'a', ONE, prefill='done', clients=('stream', 'pop'), budget=B(restart=1)), size='whole'),
    Scenario('removed by being read, 2 replicas', w('aa', ONE, clients=('pop',), replicas=2, budget=B(lost=1)),
             DIRECT + ('removes and gets from the tail', 'removes and gets from main'), size='whole'),
    Scenario('next, a client that gives up', w(budget=B(give_up=1)), size='whole'),
    Scenario('next, a lost outcome', w(budget=B(lost=1)), size='whole'),
    Scenario('out of order, 2 replicas, a lost outcome',
             w('aa', ONE, page=2, out_of_order=True, budget=B(lost=1), replicas=2), size='whole'),
    Scenario('out of order, a tail that starts again',
             w('aaa', ONE, page=2, out_of_order=True, budget=B(restart=1)), size='whole'),
    Scenario('through, a letter in the log, a lost outcome', w('aL', ONE, page=2, through=True, budget=B(lost=1)), size='whole'),
    Scenario('a tail that drops entries, and starts again', w('aMb', budget=B(drop=2, restart=1)), size='whole'),
    Scenario('two dispatchers and a marker', w('aMb', dispatchers=2), size='whole'),
    Scenario('three dispatchers, two events', w('aa', ONE, dispatchers=3), size='whole'),
    Scenario('a new round behind more topics', w('aMab', ROUNDS, budget=B(ask=1)), DIRECT + ('gets the prefill',), size='whole'),
    Scenario('stream, 2 replicas', w('aa', ONE, clients=('stream',), replicas=2), size='whole'),
    Scenario('a stream and another client', w('aa', ONE, clients=('stream', 'next')), size='whole'),
    Scenario('a stream and another client, a run counts as one read', w(
        'aa', ONE, clients=('stream', 'next'), page_is_begun=False, without={Rule.PAGE_READS_CHECKPOINT}), size='whole'),
    Scenario('the second place, and a replica that starts again',
             w('axa', ONE, second=True, held=0, budget=B(drop=1, restart=1)), size='whole'),
    Scenario('clear, two stale reads, and a replica that starts again', w(
        'aa', ONE, clear=True, repeats=True, budget=B(stale=2, restart=1)), size='whole'),

    Scenario('2 replicas, 2 dispatchers', w('aMb', replicas=2, dispatchers=2), size='long'),
    Scenario('a new round, 2 replicas', w('aMb', ROUNDS, replicas=2, budget=B(ask=1)), DIRECT + ('gets the prefill',), size='long'),
    Scenario('removed by being read, a lost outcome', w(clients=('pop',), budget=B(lost=1), replicas=2), size='long'),
    Scenario('through, letter, marker, a lost outcome', w('aLMb', page=2, through=True, budget=B(lost=1)), size='long'),
    Scenario('three dispatchers and a marker', w('aMb', dispatchers=3), size='long'),
    Scenario('stream, a new round, a replica that knows nothing', w(
        'aMb', ROUNDS, clients=('stream',), prefill='done', budget=B(ask=1)), size='long'),
    Scenario('stream, 2 replicas, connects again', w('aa', ONE, clients=('stream',), replicas=2, budget=B(cut=1)), size='long'),
    Scenario('two streams', w('aa', ONE, clients=('stream', 'stream'), budget=B(cut=1)), size='long'),
    Scenario('stream, markers, connects again', w(clients=('stream',), budget=B(cut=1)), size='long'),
]

STALE_ACK = (('main', 'ack'),)

MUTANTS = [
    Mutant(Rule.CHECKPOINT_FIRST, 'P2', w('aa', ONE)),
    Mutant(Rule.PLACE_BEFORE_CHECKPOINT, 'P2', w('aa', ONE)),
    Mutant(Rule.PLACE_BEFORE_CHECKPOINT, 'P2', w('aa', ONE, snapshot=True)),
    Mutant(Rule.DROPPED_IS_UNKNOWN, 'P2', w('aa', ONE, budget=B(drop=1))),
    Mutant(Rule.GAP_IS_NOTICED, 'P2', w('aa', ONE)),
    Mutant(Rule.READER_STOPS, '3 is delivered, and nobody', w('aMab')),
    Mutant(Rule.READER_STOPS, 'P1: the checkpoint is past the notice', w('Na', ONE)),
    Mutant(Rule.SAME_ROUND, 'P2: 3 is delivered before the prefill', w('aMb', ROUNDS, budget=B(ask=1))),
    Mutant(Rule.PREFILL_DONE, 'P2: 3 is delivered before the prefill', w('aMb', ROUNDS, budget=B(ask=1))),
    Mutant(Rule.PREFILL_DRAINED, 'P2: 3 is delivered before the prefill', w('aMb', ROUNDS, budget=B(ask=1))),
    Mutant(Rule.VIEW_FIRST, 'P2: the prefill is delivered', w('aMb', ROUNDS, prefill='done', budget=B(ask=1))),
    Mutant(Rule.POP_WRITES_FIRST, 'P3', w('aa', ONE, clients=('pop',), replicas=2)),
    Mutant(Rule.CONDITION, 'P', w('aa', ONE)),
    Mutant(Rule.COPIES_BETWEEN, 'P1', w('aa', ONE, page=2, out_of_order=True)),
    Mutant(Rule.JUDGED_BY_TAIL, 'P1', w('aa', ONE, page=2, out_of_order=True, replicas=2)),
    Mutant(Rule.LAGGING_WAITS, 'P3', w('a', ONE, replicas=2)),
    Mutant(Rule.MISSING_IS_404, 'P3', w('aa', ONE, budget=B(stale=1), stale_reads=STALE_ACK)),
    Mutant(Rule.LETTERS_IN_LOG, 'P1: a letter is lost', w('aa', ONE, through=True, budget=B(letter=1))),
    Mutant(Rule.BELOW_FIRST, 'P1', w('aM')),
    Mutant(Rule.NOTICE_RECORDED, 'P1: the checkpoint is past the notice', w('N', ONE)),
    Mutant(Rule.UNSEEN_HOLDS, 'P4', w('a', ONE)),
    Mutant(Rule.MARKER_HOLDS, 'P4', w('M')),
    Mutant(Rule.GAP_FORGETS, 'P4', w('aMb', dispatchers=2)),
    Mutant(Rule.STREAM_STOPS, '3 is delivered, and nobody', w('aMab', clients=('stream',))),
    Mutant(Rule.STREAM_NOTICES_GAP, 'P2', w('aa', ONE, clients=('stream',))),
    Mutant(Rule.STREAM_KEEPS_PLACE, '[1] is given twice', w('aM', clients=('stream',))),
    Mutant(Rule.PAGE_READS_CHECKPOINT, 'P3', w('aa', ONE, clients=('stream', 'next'))),
    Mutant(Rule.PAGE_READS_CHECKPOINT, 'P3', w('aa', ONE, clients=('stream',), budget=B(cut=1))),
    Mutant(Rule.STREAM_CHECKS_EPOCH, 'P2: 3 is delivered before the prefill', w(
        'aMb', ROUNDS, clients=('stream',), budget=B(ask=1))),
    Mutant(Rule.MAIN_BEFORE_TAIL, 'P2', w('aa', ONE, clients=('stream',))),
    Mutant(Rule.LANE_IS_LISTED, 'P2', w('aa', ONE, second=True, held=0, budget=B(drop=1))),
    Mutant(Rule.CLEAR_NEEDED, 'P2', w('aa', ONE, clear=True, repeats=True, budget=B(stale=1))),
    Mutant(Rule.CLEAR_IF_EMPTY, 'P2', w('aa', ONE, clear=True, repeats=True, budget=B(stale=1))),
    Mutant(Rule.CONFIRMED, 'P2', w('aa', ONE, clear=True, repeats=True, budget=B(stale=2))),
    Mutant(Rule.CONFIRMED, '3 is delivered, and nobody', w(
        'aMab', budget=B(stale=1), stale_reads=(('checkpoint', 'look'),), repeats=True, confirms=True)),
    Mutant(Rule.BEGINNING_CONFIRMED, 'P4: [2] is purged', w(
        'Mb', dispatchers=2, budget=B(stale=1), stale_reads=(('checkpoint', 'copy'),))),
]

REMAINS = [
    Remains('a stale checkpoint repeats', 'P3', w('aa', ONE, budget=B(stale=1), stale_reads=(('checkpoint', 'look'),))),
    Remains('a stale main skips, without `clear`', 'P2', w(
        'aa', ONE, budget=B(stale=1), stale_reads=(('main', 'look'),), repeats=True)),
]


def world(options):
    return World(**{**options, 'without': frozenset(options.get('without', ()))})


class Run:
    """Runs searches, shows each, and remembers what was not as it should be."""

    def __init__(self, verbose, words):
        self.verbose, self.words = verbose, words
        self.wrong, self.cut = [], []

    def search(self, name, options, limit):
        """None: the name holds none of the words that were asked for."""
        if self.words and not any(word in name for word in self.words):
            return None
        began = time.process_time()
        result = explore(world(options), limit)
        said = result.violation or ('complete' if result.complete else 'CUT')
        print(f'{name:<66} {result.states:>8} states {time.process_time() - began:5.1f} s  {said}', flush=True)
        if result.violation and self.verbose:
            print(''.join(f'      {what}\n' for what in result.trace), end='')
        return result

    def sound(self, scenario, limit=LIMIT):
        result = self.search(scenario.name, scenario.world, limit)
        if result is None:
            return
        if result.violation:
            self.wrong.append(f'{scenario.name}: {result.violation}')
        elif not result.complete:
            self.cut.append(f'{scenario.name}: cut at {result.states} states')
        for what in scenario.sees:
            if not any(what in kind for kind in result.steps) and not result.violation:
                self.wrong.append(f'{scenario.name}: never "{what}"')

    def broken(self, name, breaks, options):
        result = self.search(name, options, LIMIT)
        if result is not None and not (result.violation and result.violation.startswith(breaks)):
            self.wrong.append(f'{name}: {result.violation or "nothing"} instead of "{breaks}"')


def main():
    flags = {a for a in sys.argv[1:] if a.startswith('-')}
    unknown = flags - {'--quick', '--mutants', '--long', '-v'}
    if unknown:
        sys.exit(f'unknown: {" ".join(sorted(unknown))}')
    run = Run('-v' in flags, [a for a in sys.argv[1:] if not a.startswith('-')])
    sizes = ('quick',) if '--quick' in flags else ('quick', 'whole')
    if '--long' in flags:
        sizes = ('long',)
    if '--mutants' not in flags:
        for scenario in SCENARIOS:
            if scenario.size in sizes:
                run.sound(scenario, LONG_LIMIT if scenario.size == 'long' else LIMIT)
    if '--long' not in flags:
        for mutant in MUTANTS:
            run.broken(f'without {mutant.rule.value}', mutant.breaks, {**mutant.world, 'without': {mutant.rule}})
        for remains in REMAINS:
            run.broken(f'remains: {remains.name}', remains.breaks, remains.world)
        for rule in set(Rule) - {mutant.rule for mutant in MUTANTS}:
            run.wrong.append(f'no scenario leaves out "{rule.value}"')
    for line in run.wrong:
        print(f'NOT AS DOCUMENTED: {line}')
    for line in run.cut:
        print(f'!! CUT, SO NOT PROVEN: {line}')
    sys.exit(1 if run.wrong else 2 if run.cut else 0)


if __name__ == '__main__':
    main()
