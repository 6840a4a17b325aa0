"""Sections of a document as frozen dataclasses, and how values are read into them, every mistake kept.

A field says which key it is, how the value is taken, what holds where nothing is written, and the user's documentation:
`probes: int = setting(whole(1, 1000), 3, "Attempts let through at a time …")`. The schema and the reference are made of
the same fields. What values of one section say about each other, its `misfits` find. Files of the sidecar and the
gateway are read the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from meshsdk.policy.kinds import Kind, Read

if TYPE_CHECKING:
    from meshsdk.policy.reading import Path  # brings PyYAML, which who is handed sections that were read needs not

__all__ = [
    "ABSENT",
    "Form",
    "Section",
    "Wrong",
    "declared",
    "each",
    "named",
    "number",
    "omitted",
    "parts",
    "required",
    "section",
    "setting",
    "single",
    "take",
]

S = TypeVar("S", bound="Section")

ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "ABSENT"})()
"""No value at all, which None is not."""

_Check = Callable[[Any], object]


class Section:
    """Keys and values of a document; its subclasses are frozen dataclasses with slots, all fields by keyword.

    No other key is taken, no value is converted by guess.
    """

    __slots__ = ()

    SCHEMA: ClassVar[Mapping[str, Any]] = {}
    """What its schema says besides its fields."""

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Yield the key and what is wrong for values that do not fit each other; no key for the section as a whole."""
        yield from ()

    @classmethod
    def fields(cls) -> dict[str, type[Section] | None]:
        """Each key as documents spell it, with the section beneath it, if there is one."""
        return {key: field.metadata["form"].section for key, field in _keys(cls).items()}

    @classmethod
    def items(cls) -> dict[str, type[Section]]:
        """Each key that holds a list of sections, or sections by name, with what they are."""
        return {key: item for key, field in _keys(cls).items() if (item := field.metadata["form"].item)}

    @classmethod
    def written_defaults(cls) -> dict[str, Any]:
        """The built-in defaults as a document would write them."""
        return {
            key: below.written_defaults() if (below := field.metadata["form"].section) else field.metadata["written"]
            for key, field in _keys(cls).items()
            if field.metadata["written"] not in (None, ABSENT)
        }

    @classmethod
    def described(cls) -> dict[str, Mapping[str, Any]]:
        """Each key with its field's `form`, `written` default (ABSENT where it must be given) and `description`."""
        return {key: field.metadata for key, field in _keys(cls).items()}


@dataclass(frozen=True, slots=True)
class Wrong:
    """A mistake before it is put into words.

    Attributes:
        why: what to write instead; empty where the key is not known.
        value: what stands there; ABSENT where that says nothing.
        within: the section that does not know the key.
    """

    path: Path
    why: str
    value: Any = ABSENT
    within: type[Section] | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """How what stands below a key is taken.

    Attributes:
        take: returns the value, None where there are mistakes, which it adds to the list.
        schema: JSON Schema; a reference is to the section's class.
    """

    take: Callable[[Any, Path, list[Wrong]], Any]
    schema: Mapping[str, Any]
    section: type[Section] | None = None
    item: type[Section] | None = None


# --- forms --------------------------------------------------------------------------------------------


def single(read: Read) -> Form:
    """One value."""

    def taken(value: Any, path: Path, wrong: list[Wrong]) -> Any:
        try:
            return read(value)
        except ValueError as refusal:
            wrong.append(Wrong(path, str(refusal), value))
            return None

    return Form(taken, read.schema if isinstance(read, Kind) else {})


def section(model: type[S], words: Mapping[str, Callable[[], S]] | None = None) -> Form:
    """A section of its own.

    Args:
        words: what may stand in its place.
    """

    def taken(value: Any, path: Path, wrong: list[Wrong]) -> S | None:
        if not words or not isinstance(value, str):
            return take(model, value, path, wrong)
        if value in words:
            return words[value]()
        wrong.append(Wrong(path, f"write {' or '.join(words)}, or keys and values below it", value))
        return None

    return Form(taken, {"$ref": model}, section=model)


def each(form: Form, *, before: _Check | None = None, after: _Check | None = None, **schema: Any) -> Form:
    """A list.

    Args:
        before: raises ValueError for what shall not be read at all.
        after: raises ValueError for items, good by themselves, that are not good together.
        schema: what else the schema says.
    """

    def taken(value: Any, path: Path, wrong: list[Wrong]) -> tuple[Any, ...] | None:
        if _refused(before, value, value, path, wrong):
            return None
        if not isinstance(value, list):
            wrong.append(Wrong(path, "write a list, such as [first, second]", value))
            return None
        known = len(wrong)
        found = tuple(form.take(item, (*path, place), wrong) for place, item in enumerate(value))
        if len(wrong) == known:
            _refused(after, found, value, path, wrong)
        return found

    return Form(taken, {"type": "array", "items": form.schema, **schema}, item=form.section)


def named(name: Kind, form: Form, *, before: _Check | None = None, **schema: Any) -> Form:
    """Values by names that the author chooses; further arguments as of `each`."""

    def taken(value: Any, path: Path, wrong: list[Wrong]) -> dict[str, Any] | None:
        if _refused(before, value, value, path, wrong):
            return None
        if not isinstance(value, dict):
            wrong.append(Wrong(path, "write keys and values below it", value))
            return None
        found = {}
        for key, item in value.items():
            _refused(name, key, key, (*path, key), wrong)
            found[key] = form.take(item, (*path, key), wrong)
        return found

    patterns = {name.schema["pattern"]: form.schema}
    return Form(taken, {"type": "object", "patternProperties": patterns, **schema}, item=form.section)


def _refused(check: _Check | None, found: Any, value: Any, path: Path, wrong: list[Wrong]) -> bool:
    try:
        if check is not None:
            check(found)
    except ValueError as refusal:
        wrong.append(Wrong(path, str(refusal), value))
        return True
    return False


# --- fields -------------------------------------------------------------------------------------------


def setting(form: Form | Kind, written: Any, description: str) -> Any:
    """A key with a default.

    Args:
        written: the default as a document would write it.
        description: what the reference says about it, with the default's reason.
    """
    form = form if isinstance(form, Form) else single(form)
    wrong: list[Wrong] = []
    default = form.take(written, (), wrong)
    assert not wrong, f"the default {written!r} is none: {wrong}"
    return declared(form, default, written=written, description=description)


def omitted(form: Form | Kind, description: str, key: str = "") -> Any:
    """A key without a default, None where it is left out; a document cannot write that None."""
    return declared(form if isinstance(form, Form) else single(form), None, description=description, key=key)


def required(kind: Kind, example: str, description: str) -> Any:
    """A key that must be there.

    Args:
        example: what to write where it is not.
    """
    return declared(single(kind), ABSENT, written=ABSENT, description=description, example=example)


def declared(
    form: Form, default: Any, *, written: Any = None, description: str = "", key: str = "", example: str = ""
) -> Any:
    """Any field of a section.

    Args:
        default: the value itself; ABSENT where the key must be there.
        key: as documents spell it, where the field is named otherwise.
    """
    metadata = {
        "form": form,
        "written": written,
        "description": " ".join(description.split()),
        "key": key,
        "example": example,
    }
    return (
        dataclasses.field(metadata=metadata)
        if default is ABSENT
        else dataclasses.field(default=default, metadata=metadata)
    )


# --- reading ------------------------------------------------------------------------------------------


def take(model: type[S], value: Any, path: Path, wrong: list[Wrong]) -> S | None:
    """Read plain values into a section; None where there are mistakes, all of which are added to `wrong`."""
    if not isinstance(value, dict):
        wrong.append(Wrong(path, "write keys and values below it", value))
        return None
    known = len(wrong)
    found = parts(model, value, path, wrong)
    if len(wrong) > known:
        return None
    made = model(**found)
    wrong += [Wrong((*path, key), why) if key else Wrong(path, why, value) for key, why in made.misfits()]
    return made if len(wrong) == known else None


def parts(model: type[Section], value: Mapping[str, Any], path: Path, wrong: list[Wrong]) -> dict[str, Any]:
    """Read the keys of a section one by one, by field; those with mistakes are left out, in a list they are None."""
    keys = _keys(model)
    found: dict[str, Any] = {}
    for key, field in keys.items():
        given = value.get(key, ABSENT)
        if given is None:
            wrong.append(Wrong((*path, key), "no value; write one, or leave the key out", None))
        elif given is not ABSENT:
            if (taken := field.metadata["form"].take(given, (*path, key), wrong)) is not None:
                found[field.name] = taken
        elif field.default is dataclasses.MISSING:
            wrong.append(Wrong((*path, key), f"missing; write {field.metadata['example']}"))
    wrong += [Wrong((*path, key), "", within=model) for key in value if key not in keys]
    return found


def _by_key(model: Any) -> dict[str, dataclasses.Field[Any]]:
    return {field.metadata["key"] or field.name: field for field in dataclasses.fields(model)}


_keys: Callable[[Any], dict[str, dataclasses.Field[Any]]] = cache(_by_key)


def number(value: float) -> float:
    """A number as people write it: 50, not 50.0."""
    return int(value) if value == int(value) else value
