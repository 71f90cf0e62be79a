"""Breadth-first search of an explicit-state model, so that a trace is a shortest one.

A model has `initial()`, `steps(state)` (pairs of what happens and the state after it), `check(state)`, which raises `Bad`,
and `goal(state)`: it must stay in reach of every state, except beyond states that are `pruned(state)`.
"""
from collections import deque
from typing import NamedTuple


class Bad(Exception):
    """A promise is broken by the step that is being computed, or by the state that it leads to."""


class Result(NamedTuple):
    violation: str      # '' if there is none
    trace: list         # what happened until then
    states: int
    complete: bool      # False: the limit came first, and nothing is said about dead ends
    steps: frozenset    # the kinds of steps that were seen: what stands before the first colon


def explore(model, limit=400_000):
    """Searches until something is broken, all states are known, or there are `limit` of them (never by time)."""
    first = model.initial()
    ids, states, parents, sources = {first: 0}, [first], [None], [[]]
    todo, kinds = deque([0]), set()

    def trace(i, last=None):
        out = [last] if last else []
        while parents[i] is not None:
            i, what = parents[i]
            out.append(what)
        return out[::-1]

    def result(violation, trace, complete):
        return Result(violation, trace, len(states), complete, frozenset(kinds))

    while todo:
        i = todo.popleft()
        steps = model.steps(states[i])
        while True:
            try:
                what, after = next(steps)
            except StopIteration:
                break
            except Bad as bad:
                return result(str(bad), trace(i, '** the step that breaks it'), False)
            j = ids.get(after)
            if j is None:
                j = ids[after] = len(states)
                states.append(after)
                parents.append((i, what))
                sources.append([])
                kinds.add(what.partition(':')[0])
                try:
                    model.check(after)
                except Bad as bad:
                    return result(str(bad), trace(j), False)
                todo.append(j)
            sources[j].append(i)
        if len(states) > limit:
            return result('', [], False)
    dead = dead_end(model, states, sources)
    if dead is not None:
        return result('DEAD END: from here the goal is out of reach', trace(dead), True)
    return result('', [], True)


def dead_end(model, states, sources):
    """The first state from which no goal can be reached; None: there is none."""
    good = [i for i, state in enumerate(states) if model.goal(state) or model.pruned(state)]
    alive = bytearray(len(states))
    for i in good:
        alive[i] = 1
    while good:
        for i in sources[good.pop()]:
            if not alive[i]:
                alive[i] = 1
                good.append(i)
    dead = alive.find(0)
    return None if dead < 0 else dead
