"""Sections of the sidecar's and the gateway's file: read as those of policies are, told in words of their own.

`port: int = setting(kinds.port, 8080)` says how a value is read and what holds where nothing is written. Unlike a
policy's, defaults are values and not text, and what a key means stands in its section's docstring.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from meshsdk.policy import section as read
from meshsdk.policy.kinds import Read
from meshsdk.policy.section import ABSENT, Section, Wrong

if TYPE_CHECKING:
    from meshsdk.policy.reading import Mistake, Path

__all__ = ["Section", "each", "parts", "section", "setting", "take"]

S = TypeVar("S", bound=Section)

_SHAPES = {
    "write keys and values below it": "write keys and values below it",
    "write a list, such as [first, second]": "write a list, an item for each",
}
"""Of what has another shape the place says enough; what stands there is not repeated."""


def setting(kind: Read, default: Any = ABSENT, *, example: str = "") -> Any:
    """A key with one value.

    Args:
        default: where the key is left out; without one, it must be there.
        example: what to write where it must and is not.
    """
    return read.declared(read.single(kind), default, example=example)


def section(
    model: type[S], *, required: str = "", absent: bool = False, words: Mapping[str, Callable[[], S]] | None = None
) -> Any:
    """A key with a section of its own.

    Args:
        required: what to write where it must be there and is not.
        absent: a section that is left out is None, not its defaults.
        words: what may stand in its place.
    """
    default = ABSENT if required else None if absent else model()
    return read.declared(read.section(model, words), default, example=required)


def each(model: type[Section]) -> Any:
    """A key with a list of sections; none where it is left out."""
    return read.declared(read.each(read.section(model)), ())


def take(model: type[S], value: Any, path: Path, mistakes: list[Mistake]) -> S | None:
    """Read plain values into a section; None where there are mistakes, all of which are added to `mistakes`."""
    wrong: list[Wrong] = []
    made = read.take(model, value, path, wrong)
    mistakes += [(mistake.path, _told(mistake)) for mistake in wrong]
    return made


def parts(model: type[Section], value: Mapping[str, Any]) -> dict[str, Any]:
    """Read the keys of a section that are good on their own; of a list, items that are not are None."""
    return read.parts(model, value, (), [])


def _told(mistake: Wrong) -> str:
    if mistake.within is not None:
        return _unknown(str(mistake.path[-1]), list(mistake.within.fields()))
    if mistake.why in _SHAPES:
        return _SHAPES[mistake.why]
    return (
        mistake.why if mistake.value is None or mistake.value is ABSENT else f"{_shown(mistake.value)}: {mistake.why}"
    )


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}"


def _shown(value: Any) -> str:
    if value and isinstance(value, dict | list):
        return "keys and values" if isinstance(value, dict) else "a list"
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}…"
