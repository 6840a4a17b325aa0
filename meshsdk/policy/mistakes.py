"""What is wrong with a document's values, each as one line: path, bad value, what to write, the nearest known key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from meshsdk.policy.reading import Mistake, Path, Reading, path_text
from meshsdk.policy.refused import REFUSED
from meshsdk.policy.section import Section
from meshsdk.policy.sections import CallerSections, Sections

__all__ = ["find"]

_MOST = 200  # lines a person may still read; a hostile document has 20,000 mistakes

_SAY = {
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "finite_number": "write a number",
    "greater_than_equal": "write {ge:.12g} or more",
    "less_than_equal": "write {le:.12g} or less",
    "literal_error": "write {expected}",
    "bool_type": "write true or false",
    "string_type": "write text, in quotes where it looks like a number",
    "tuple_type": "write a list, such as [first, second]",
    "model_type": "write keys and values below it",
    "dict_type": "write keys and values below it",
}


def find(model: type[Section], reading: Reading, misfits: Sequence[Mistake]) -> list[str]:
    """All mistakes of a document as people read them, in the order of the text; the first 200 are spelled out.

    Args:
        model: what the document must be.
        reading: its values; mistakes made in reading them are listed too.
        misfits: values that do not fit each other.
    """
    found: list[tuple[Path, str | ErrorDetails]] = [*reading.mistakes, *misfits]
    try:
        model.model_validate(reading.value)
    except ValidationError as refused:
        found += [(_path(error), error) for error in refused.errors(include_url=False)]
    found.sort(key=lambda mistake: _line_of(reading, mistake[0]) or 0)
    more = [f"{len(found) - _MOST} more; correct these first"] if len(found) > _MOST else []
    return [
        _line(path, why if isinstance(why, str) else _why(model, path, why), reading) for path, why in found[:_MOST]
    ] + more


def _line(path: Path, why: str, reading: Reading) -> str:
    number = _line_of(reading, path)
    return f"{path_text(path) or 'document'}: {why}" + (f" (line {number})" if number else "")


def _line_of(reading: Reading, path: Path) -> int | None:
    lines = (reading.lines.get(path[:length]) for length in range(len(path), -1, -1))
    return next((number for number in lines if number), None)


def _path(error: ErrorDetails) -> Path:
    return tuple(step for step in error["loc"] if step != "[key]")


def _why(model: type[Section], path: Path, error: ErrorDetails) -> str:
    if error["type"] == "extra_forbidden":
        return _unknown(model, path)
    if error["type"] == "missing":
        return f"missing; write `{path_text(path)}: 1`"
    return f"{_shown(error['input'])}: {_advice(error)}"


def _advice(error: ErrorDetails) -> str:
    if error["input"] is None:
        return "no value; write one, or leave the key out to keep the default"
    advice = _SAY.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    options = advice.removeprefix("write ").replace(" or ", ", ").replace("'", "").split(", ")
    close = difflib.get_close_matches(_dashed(error["input"]), options, n=1) if error["type"] == "literal_error" else []
    return advice + (f"; did you mean {close[0]}?" if close else "")


def _dashed(value: object) -> str:
    return str(value).lower().replace("_", "-")


def _shown(value: object) -> str:
    if value and isinstance(value, Mapping | list):
        return "keys and values" if isinstance(value, Mapping) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _unknown(model: type[Section], path: Path) -> str:
    parent, within = _parent(model, path)
    if why := REFUSED.get(path_text(within)):
        return why
    key = str(path[-1])
    near = difflib.get_close_matches(key, parent.fields(), n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    elsewhere = [known for known in _paths(Sections) if known.rpartition(".")[2] == key]
    if elsewhere:
        return f"unknown key here; {elsewhere[0]} exists"
    return f"unknown key; known here are {', '.join(parent.fields())}"


def _parent(model: type[Section], path: Path) -> tuple[type[Section], Path]:
    """The section that holds the key, and the path within the document or the caller's part of it."""
    if len(path) > 2 and path[0] == "from":
        return _parent(CallerSections, path[2:])
    section: Any = model
    steps = iter(path[:-1])
    for step in steps:
        below = section.fields()[step]
        if below is None:  # a list, or sections by name: the next step is which of them
            below = section.items()[step]
            next(steps)
        section = below
    return section, path


def _paths(model: type[Section], prefix: str = "") -> Iterator[str]:
    for key, section in model.fields().items():
        yield prefix + key
        if section:
            yield from _paths(section, f"{prefix}{key}.")
