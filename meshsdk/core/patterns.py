"""Regular expressions of Consul's intentions, in RE2's syntax, matched in time that grows with the text alone.

Python's `re` is no stand-in: it goes back over the text, so `(a+)+` takes 2ⁿ steps, and it reads `\\z`, `[[:alpha:]]`,
`{,3}` or `$` otherwise than RE2. So a pattern becomes an automaton here, whose states are found as texts need them.

Rule 1: a pattern matches the whole text, as Envoy has it; `^` at its beginning and `$` at its end say nothing more.
Rule 2: what means the same in RE2 is taken: letters, `.`, `[…]`, `\\d \\w \\s` and their capitals, `\\x41`, `(…)`,
        `(?:…)`, `(?P<name>…)`, `|`, `* + ? {2} {2,} {2,5}` (lazy or not is one for a whole match), `(?i)` in front.
Rule 3: everything else is refused with a reason: look-around and back references, which RE2 has not, and what is rare
        (`\\b`, `\\p{Greek}`, `\\Q…\\E`, `[[:alpha:]]`, anchors and flags in the middle).
Rule 4: a pattern has at most 512 characters, 256 states and groups 20 deep, and a text 2,048 characters. 256 states
        looked at for each of them are 40 ms at worst, once: their results are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NoReturn

from meshsdk.core.automaton import Choice, One, Part, Ranges, Repeat, Row, States

__all__ = ["MAX_TEXT", "Pattern"]

MAX_TEXT: Final = 2048
"""Characters of the longest text that is looked at."""

_MOST_CHARACTERS: Final = 512
_DEEPEST: Final = 20
_MOST_KEPT: Final = 4096  # steps between sets of states

_END: Final = 0x10FFFF
_COUNT: Final = re.compile(r"\{([0-9]{1,4})(?:(,)([0-9]{1,4})?)?\}")
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_GROUP: Final = re.compile(r"\((?:\?(?::|P?<[A-Za-z_][A-Za-z0-9_]*>))?")
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_KINDS: dict[str, Ranges] = {
    "d": ((48, 57),),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "s": ((9, 10), (12, 13), (32, 32)),
}


def _others(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """All characters but these."""
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, (start, _END)) if start <= _END else tuple(found)


class Pattern:
    """A pattern made ready.

    Args:
        text: the pattern.

    Raises:
        ValueError: it is not taken; says why.
    """

    __slots__ = ("_accepts", "_any_case", "_kept", "_start", "_states", "text")

    def __init__(self, text: str) -> None:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"{len(text)} characters; at most {_MOST_CHARACTERS} are taken")
        self.text = text
        self._any_case = text.startswith("(?i)")
        states = States()
        start = _Reader(text.removeprefix("(?i)")).read().build(states, 0)
        self._states = states
        self._start = states.reached([start])
        self._kept: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def matches(self, text: str) -> bool | None:
        """Whether the whole text fits; None where it is too long to say."""
        if len(text) > MAX_TEXT:
            return None
        now = self._start
        for character in text:
            following = self._kept.get((now, character))
            now = self._step(now, character) if following is None else following
            if not now:
                return False
        return 0 in now

    def _step(self, now: frozenset[int], character: str) -> frozenset[int]:
        spellings = {character, *character.lower(), *character.upper()} if self._any_case else {character}
        codes = [ord(spelling) for spelling in spellings]
        found = self._states.after(now, codes)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[now, character] = found
        return found


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def read(self) -> Part:
        part = self._choice()
        if self._at < len(self._text):
            self._refuse("a ) without its (")
        return part

    def _refuse(self, why: str) -> NoReturn:
        raise ValueError(f"{why} at character {self._at + 1}")

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return found

    def _choice(self) -> Part:
        parts = [self._row()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._row())
        return parts[0] if len(parts) == 1 else Choice(parts)

    def _row(self) -> Part:
        if self._depth == 0 and self._next() == "^":
            self._at += 1
        parts: list[Part] = []
        while self._next() not in {"", "|", ")"}:
            if self._depth == 0 and self._next() == "$" and self._text[self._at + 1 : self._at + 2] in {"", "|"}:
                self._at += 1
                break
            parts.append(self._repeated(self._single()))
        return Row(parts)

    def _repeated(self, part: Part) -> Part:
        bounds = self._bounds()
        if bounds is None:
            return part
        if self._next() == "?":  # lazy: the same for a match of the whole
            self._at += 1
        if self._bounds():
            self._refuse("a repeat of a repeat")
        return Repeat(part, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._next())
        if simple:
            self._at += 1
            return simple
        if not (found := self._take(_COUNT)):
            return None
        least = int(found[1])
        most = (int(found[3]) if found[3] else None) if found[2] else least
        if most is not None and most < least:
            self._refuse("a repeat whose most is less than its least")
        return least, most

    def _single(self) -> Part:
        character = self._next()
        if character == "(":
            return self._group()
        if character in "*+?" or _COUNT.match(self._text, self._at):
            self._refuse("a repeat of nothing")
        if character in "^$":
            self._refuse("an anchor in the middle")
        self._at += 1
        if character == "[":
            return One(self._class())
        if character == ".":
            return One(_others([(10, 10)]))
        return One(self._escape() if character == "\\" else _just(character))

    def _group(self) -> Part:
        opened = self._take(_GROUP)
        if self._next() == "?" or not opened:
            self._refuse("a group of a kind that is not taken")
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(f"groups more than {_DEEPEST} deep")
        part = self._choice()
        self._depth -= 1
        if self._next() != ")":
            self._refuse("a ( without its )")
        self._at += 1
        return part

    def _escape(self) -> Ranges:
        """What stands behind a backslash."""
        if found := self._take(_HEX):
            code = int(found[1] or found[2], 16)
            return ((code, code),) if code <= _END else self._refuse("no character")
        character = self._next()
        self._at += 1
        if character.lower() in _KINDS:
            ranges = _KINDS[character.lower()]
            return ranges if character.islower() else _others(ranges)
        if character in _CONTROLS:
            character = _CONTROLS[character]
        elif not character or character.isalnum() or not character.isascii():
            self._refuse(f"an escape \\{character} that is not taken")
        return _just(character)

    def _class(self) -> Ranges:
        """What stands in brackets."""
        negated = self._next() == "^"
        self._at += negated
        ranges = [found for members in self._members() for found in members]
        return _others(ranges) if negated else tuple(ranges)

    def _members(self) -> Iterator[Ranges]:
        first = True
        while first or self._next() != "]":
            low = self._member()
            if self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in {"]", ""}:
                self._at += 1
                low = self._span(low, self._member())
            yield low
            first = False
        self._at += 1

    def _member(self) -> Ranges:
        character = self._next()
        if not character:
            self._refuse("a [ without its ]")
        if self._text.startswith("[:", self._at):
            self._refuse("a class by name; write its letters, such as [a-z],")
        self._at += 1
        return self._escape() if character == "\\" else _just(character)

    def _span(self, low: Ranges, high: Ranges) -> Ranges:
        first, last = _only(low), _only(high)
        if first is None or last is None or first > last:
            self._refuse("a range that is none")
        return ((first, last),)


def _just(character: str) -> Ranges:
    return ((ord(character), ord(character)),)


def _only(ranges: Ranges) -> int | None:
    """The one character of these ranges, None where they have more."""
    codes = {code for run in ranges for code in run}
    return min(codes) if len(codes) == 1 else None
