"""Sections of the sidecar's file as frozen dataclasses, and how values are read into them, every mistake kept.

A section's fields say how their value is read and what holds where nothing is written: `port: int = setting(kinds.port,
8080)`. What values of one section say about each other, its `misfits` find. Models of pydantic do the same for
policies; here they would stay in memory for the life of every sidecar, for one reading of twenty lines.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from meshsdk.policy.reading import Mistake, Path
from meshsdk_sidecar.kinds import Read

__all__ = ["Section", "each", "parts", "section", "setting", "take"]

S = TypeVar("S", bound="Section")

_MISSING = dataclasses.MISSING
_Taker = Callable[[Any, Path, list[Mistake]], Any]


class Section:
    """What every section is; its subclasses are frozen dataclasses."""

    __slots__ = ()

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Yield the key and what is wrong for values that do not fit each other."""
        yield from ()


def setting(read: Read, default: Any = _MISSING, *, example: str = "") -> Any:
    """A key with one value.

    Args:
        default: where the key is left out; without one, it must be there.
        example: what to write where it must and is not.
    """

    def taken(value: Any, path: Path, mistakes: list[Mistake]) -> Any:
        try:
            return read(value)
        except ValueError as refusal:
            mistakes.append((path, f"{_shown(value)}: {refusal}"))
            return None

    return _field(taken, default, {"example": example})


def section(
    model: type[S], *, required: str = "", absent: bool = False, words: Mapping[str, Callable[[], S]] | None = None
) -> Any:
    """A key with a section of its own.

    Args:
        required: what to write where it must be there and is not.
        absent: a section that is left out is None, not its defaults.
        words: what may stand in its place.
    """

    def taken(value: Any, path: Path, mistakes: list[Mistake]) -> Any:
        if words and isinstance(value, str):
            if value in words:
                return words[value]()
            mistakes.append((path, f"{value!r}: write {' or '.join(words)}, or keys and values below it"))
            return None
        return take(model, value, path, mistakes)

    metadata = {"example": required}
    if required:
        return _field(taken, _MISSING, metadata)
    return _field(taken, None, metadata) if absent else _field(taken, _MISSING, metadata, factory=model)


def each(model: type[Section]) -> Any:
    """A key with a list of sections; none where it is left out."""

    def taken(value: Any, path: Path, mistakes: list[Mistake]) -> Any:
        if not isinstance(value, list):
            mistakes.append((path, "write a list, an item for each"))
            return None
        return tuple(take(model, item, (*path, number), mistakes) for number, item in enumerate(value))

    return _field(taken, (), {"example": ""})


def take(model: type[S], value: Any, path: Path, mistakes: list[Mistake]) -> S | None:
    """Read plain values into a section; None where there are mistakes, all of which are added to `mistakes`."""
    if not isinstance(value, dict):
        mistakes.append((path, "write keys and values below it"))
        return None
    before = len(mistakes)
    found = parts(model, value, path, mistakes)
    if len(mistakes) > before:
        return None
    made = model(**found)
    mistakes += [((*path, key) if key else path, why) for key, why in made.misfits()]
    return made if len(mistakes) == before else None


def parts(model: type[Section], value: Mapping[str, Any], path: Path, mistakes: list[Mistake]) -> dict[str, Any]:
    """Read the keys of a section one by one; those with mistakes are left out, in a list they are None."""
    fields = {field.name: field for field in dataclasses.fields(model)}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    for key, given in value.items():
        if key not in fields:
            mistakes.append(((*path, key), _unknown(key, list(fields))))
        elif given is None:
            mistakes.append(((*path, key), "no value; write one, or leave the key out"))
        elif (taken := fields[key].metadata["taken"](given, (*path, key), mistakes)) is not None:
            found[key] = taken
    for name, field in fields.items():
        if name not in value and field.default is _MISSING and field.default_factory is _MISSING:
            mistakes.append(((*path, name), f"missing; write {field.metadata['example']}"))
    return found


def _field(taken: _Taker, default: Any, metadata: dict[str, Any], *, factory: Any = _MISSING) -> Any:
    metadata["taken"] = taken
    if factory is not _MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known are {', '.join(known)}"


def _shown(value: Any) -> str:
    if value and isinstance(value, dict | list):
        return "keys and values" if isinstance(value, dict) else "a list"
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}…"
