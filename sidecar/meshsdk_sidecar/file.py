"""Reads the sidecar's file and checks it whole: every mistake with its path, line and column, and what to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from meshsdk.errors import ConfigError, PolicyError
from meshsdk.policy import reading
from meshsdk_sidecar.config import Admin, Config, Inbound, Outbound, Service
from meshsdk_sidecar.place import Place, clash
from meshsdk_sidecar.sections import Section, parts, take

__all__ = ["Found", "clashes", "load", "load_as"]

S = TypeVar("S", bound=Section)

Found = Mapping[str, Any]
"""The sections of a file that are good on their own, by name."""

_LEAST = "service: {name: …}"


def load(file: Path) -> Config:
    """Read the file.

    Raises:
        ConfigError: it cannot be read, is not YAML or JSON, or has mistakes; all of them are listed.
    """
    return load_as(Config, file, lambda found: clashes(_places(found)))


def load_as(model: type[S], file: Path, further: Callable[[Found], Iterable[reading.Mistake]]) -> S:
    """Read a file as a section of some kind.

    Args:
        further: finds mistakes between sections, also where others of them are not good.

    Raises:
        ConfigError: as `load`.
    """
    try:
        found = _read(file.read_bytes(), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except PolicyError as error:
        raise _refusal(file, list(error.mistakes)) from error
    if not isinstance(found.value, dict):
        raise _refusal(file, [f"not keys and values; begin with `{_LEAST}`"])
    mistakes = list(found.mistakes)
    config = take(model, found.value, (), mistakes)
    mistakes += further(parts(model, found.value))
    if config is None or mistakes:
        mistakes.sort(key=lambda mistake: _position(mistake[0], found))
        raise _refusal(file, [_line(path, why, found) for path, why in mistakes])
    return config


def _read(text: bytes, source: str) -> reading.Reading:
    try:
        return reading.read(text, source, least=_LEAST, placed=True)
    except PolicyError:
        return reading.read(text, source, least=_LEAST)  # JSON may hold escapes that YAML's reader refuses


def clashes(places: Iterable[tuple[reading.Path, Place]]) -> Iterator[reading.Mistake]:
    """Two cannot listen at one place; at the app's own the sidecar would take itself for the app."""
    taken: list[tuple[reading.Path, Place]] = []
    for path, place in places:
        for other, there in taken:
            if clash(place, there):
                name = reading.path_text((*other, "socket" if there.socket else "port"))
                yield (*path, "socket" if place.socket else "port"), f"{place}: {name} is the same; give each its own"
                break
        else:
            taken.append((path, place))


def _places(sections: Found) -> Iterator[tuple[reading.Path, Place]]:
    service: Service | None = sections.get("service")
    if service is not None and service.place is not None:
        yield ("service",), service.place
        yield ("inbound",), sections.get("inbound", Inbound()).place
    yield ("outbound",), sections.get("outbound", Outbound()).place
    yield ("admin",), sections.get("admin", Admin()).place
    if probes := sections.get("probes"):
        yield ("probes",), probes.place
    for number, upstream in enumerate(sections.get("upstreams", ())):
        if upstream is not None:
            yield ("upstreams", number), upstream.place


def _position(path: reading.Path, found: reading.Reading) -> tuple[int, int]:
    """Where a path stands, or else what is nearest above it."""
    above = (path[:length] for length in range(len(path), 0, -1))
    near = next((step for step in above if step in found.lines), ())
    return (found.lines[near], found.columns[near]) if near else (0, 0)


def _line(path: reading.Path, why: str, found: reading.Reading) -> str:
    line, column = _position(path, found)
    return f"{reading.path_text(path)}: {why}" + (f" (line {line}, column {column})" if line else "")


def _refusal(file: Path, lines: list[str]) -> ConfigError:
    count = f"{len(lines)} mistake{'s' if len(lines) != 1 else ''}"
    return ConfigError(f"{file}: {count}\n" + "\n".join(f"  {line}" for line in lines))
