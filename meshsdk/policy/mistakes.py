"""What is wrong with a document's values, each as one line: path, bad value, what to write, the nearest known key."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence

from meshsdk.policy.reading import Mistake, Path, Reading, path_text
from meshsdk.policy.refused import OF_SERVICES, REFUSED
from meshsdk.policy.section import ABSENT, Section, Wrong, take
from meshsdk.policy.sections import MeshCaller, Sections

__all__ = ["find", "told"]

_MOST = 200  # lines a person may still read; a hostile document has 20,000 mistakes


def find(model: type[Section], reading: Reading, misfits: Sequence[Mistake]) -> list[str]:
    """All mistakes of a document as people read them, in the order of the text; the first 200 are spelled out.

    Args:
        model: what the document must be.
        reading: its values; mistakes made in reading them are listed too.
        misfits: values that do not fit each other.
    """
    wrong: list[Wrong] = []
    take(model, reading.value, (), wrong)
    found: list[tuple[Path, str | Wrong]] = [
        *reading.mistakes,
        *misfits,
        *((mistake.path, mistake) for mistake in wrong),
    ]
    found.sort(key=lambda mistake: _line_of(reading, mistake[0]) or 0)
    more = [f"{len(found) - _MOST} more; correct these first"] if len(found) > _MOST else []
    return [_line(path, why if isinstance(why, str) else told(why), reading) for path, why in found[:_MOST]] + more


def told(mistake: Wrong) -> str:
    """Why something is wrong, in words: the bad value and what to write instead."""
    if mistake.within is not None:
        return _unknown(mistake.within, mistake.path)
    if mistake.value is ABSENT:
        return mistake.why
    if mistake.value is None:
        return "null: no value; write one, or leave the key out to keep the default"
    return f"{_shown(mistake.value)}: {mistake.why}"


def _line(path: Path, why: str, reading: Reading) -> str:
    number = _line_of(reading, path)
    return f"{path_text(path) or 'document'}: {why}" + (f" (line {number})" if number else "")


def _line_of(reading: Reading, path: Path) -> int | None:
    lines = (reading.lines.get(path[:length]) for length in range(len(path), -1, -1))
    return next((number for number in lines if number), None)


def _shown(value: object) -> str:
    if value and isinstance(value, Mapping | list):
        return "keys and values" if isinstance(value, Mapping) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _unknown(section: type[Section], path: Path) -> str:
    key = str(path[-1])
    within = path[2:] if len(path) > 2 and path[0] == "from" else path  # the caller's part is a document of its own
    why = OF_SERVICES if section is MeshCaller and key in Sections.fields() else REFUSED.get(path_text(within))
    if why:
        return why
    near = difflib.get_close_matches(key, section.fields(), n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    elsewhere = [known for known in _paths(Sections) if known.rpartition(".")[2] == key]
    if elsewhere:
        return f"unknown key here; {elsewhere[0]} exists"
    return f"unknown key; known here are {', '.join(section.fields())}"


def _paths(model: type[Section], prefix: str = "") -> Iterator[str]:
    for key, section in model.fields().items():
        yield prefix + key
        if section:
            yield from _paths(section, f"{prefix}{key}.")
