"""The automaton behind `patterns`: states that take a character, found from the parts of a pattern (Thompson, 1968)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["MOST_STATES", "Choice", "One", "Part", "Ranges", "Repeat", "Row", "States"]

MOST_STATES: Final = 256

Ranges = tuple[tuple[int, int], ...]
"""Characters, as the first and the last code of each run of them."""


class States:
    """The automaton: state 0 accepts; every other one takes a character, or leads on without one."""

    def __init__(self) -> None:
        self._taking: list[tuple[Ranges, int] | None] = [None]
        self._leading: list[tuple[int, ...]] = [()]

    def taking(self, ranges: Ranges, to: int) -> int:
        """A state that takes a character of these ranges; raises ValueError where there are too many states."""
        return self._add((ranges, to), ())

    def leading(self, *to: int) -> int:
        """A state that leads on without a character; raises ValueError where there are too many states."""
        return self._add(None, to)

    def lead(self, state: int, *to: int) -> None:
        """Let a state lead on to these."""
        self._leading[state] = to

    def _add(self, taking: tuple[Ranges, int] | None, leading: tuple[int, ...]) -> int:
        if len(self._taking) > MOST_STATES:
            raise ValueError(f"repeats come to more than {MOST_STATES} states; make them shorter")
        self._taking.append(taking)
        self._leading.append(leading)
        return len(self._taking) - 1

    def reached(self, states: Iterable[int]) -> frozenset[int]:
        """Every state that can be reached from these without a character."""
        found: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state not in found:
                found.add(state)
                waiting += self._leading[state]
        return frozenset(state for state in found if state == 0 or self._taking[state])

    def after(self, now: Iterable[int], codes: list[int]) -> frozenset[int]:
        """Every state that a character leads to, given as the codes it may be taken for."""
        edges = (edge for state in now if (edge := self._taking[state]))
        return self.reached(
            to for ranges, to in edges if any(low <= code <= high for low, high in ranges for code in codes)
        )


class One:
    """A character of these ranges."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges

    def build(self, states: States, to: int) -> int:
        """States that lead to `to` by way of this; the first of them."""
        return states.taking(self.ranges, to)


class Row:
    """Parts one after the other."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    def build(self, states: States, to: int) -> int:
        """States that lead to `to` by way of this; the first of them."""
        if not self.parts:
            return states.leading(to)  # a state even for nothing, so that repeats of nothing are bounded too
        for part in reversed(self.parts):
            to = part.build(states, to)
        return to


class Choice:
    """One of these parts."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts

    def build(self, states: States, to: int) -> int:
        """States that lead to `to` by way of this; the first of them."""
        return states.leading(*(part.build(states, to) for part in self.parts))


class Repeat:
    """A part so many times; `most` None is without end."""

    def __init__(self, part: Part, least: int, most: int | None) -> None:
        self.part, self.least, self.most = part, least, most

    def build(self, states: States, to: int) -> int:
        """States that lead to `to` by way of this; the first of them."""
        if self.most == 0:
            return states.leading(to)
        start = self._loop(states, to) if self.most is None else to
        for _ in range(self.least, self.most or 0):
            start = states.leading(self.part.build(states, start), to)
        for _ in range(self.least):
            start = self.part.build(states, start)
        return start

    def _loop(self, states: States, to: int) -> int:
        loop = states.leading()
        states.lead(loop, self.part.build(states, loop), to)
        return loop


Part = One | Row | Choice | Repeat
