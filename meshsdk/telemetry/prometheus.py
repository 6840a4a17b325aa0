"""Prometheus text (exposition format 0.0.4): written from families, and merged from several workers' texts.

`merge` reads what `expose` wrote and nothing else: the workers of one server are of one version, so anything unexpected
is a mistake to be told, not a dialect to be guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from meshsdk.telemetry import catalogue
from meshsdk.telemetry.instruments import Family, Metric, Sample

__all__ = ["CONTENT_TYPE", "expose", "lasting", "merge", "metric_name"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNITS = {"s": "_seconds", "By": "_bytes"}
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})
_SERIES = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*\})?) (\S+)')
_ABOUT = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)")


def metric_name(metric: Metric) -> str:
    """The metric's name in Prometheus: underscores, its unit, and `_total` for counters."""
    name = metric.name.replace(".", "_") + _UNITS.get(metric.unit, "")
    return f"{name}_total" if metric.kind == "counter" else name


def expose(families: Iterable[Family]) -> str:
    """Families as text, each with HELP and TYPE once; empty for none."""
    return "".join(line for family in families for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    name = metric_name(family.metric)
    yield f"# HELP {name} {family.metric.help.translate(_HELP_ESCAPES)}\n"
    yield f"# TYPE {name} {family.metric.kind}\n"
    keys = [label.replace(".", "_") for label in family.metric.labels]
    for sample in family.samples:
        pairs = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in zip(keys, sample.labels, strict=True))
        if family.metric.kind == "histogram":
            yield from _histogram(name, pairs, sample, family.bounds)
        else:
            yield f"{name}{{{pairs}}} {_number(sample.value)}\n" if pairs else f"{name} {_number(sample.value)}\n"


def _histogram(name: str, pairs: str, sample: Sample, bounds: tuple[float, ...]) -> Iterator[str]:
    prefix = f"{pairs}," if pairs else ""
    below = 0
    for bound, count in zip((*bounds, math.inf), sample.buckets, strict=True):
        below += count
        yield f'{name}_bucket{{{prefix}le="{_number(bound)}"}} {below}\n'
    yield f"{name}_sum{{{pairs}}} {_number(sample.value)}\n"
    yield f"{name}_count{{{pairs}}} {sample.count}\n"


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))


@dataclass(slots=True)
class _Block:
    """One metric in a text: its two lines of description, then its series in order."""

    about: list[str] = field(default_factory=list)
    series: dict[str, float] = field(default_factory=dict)


def merge(texts: Iterable[str]) -> str:
    """One text for all workers of a server.

    Counters, histograms and most gauges add up; gauges that tell a state or an age take the largest, and those
    that tell how much time is left the smallest.

    Args:
        texts: what `expose` wrote in each worker.

    Raises:
        ValueError: a line is not one that `expose` writes; says which.
    """
    merged: dict[str, _Block] = {}
    for text in texts:
        for name, block in _read(text).items():
            into = merged.setdefault(name, _Block(block.about))
            combine = _COMBINE.get(name, _add)
            for series, value in block.series.items():
                known = into.series.get(series)
                into.series[series] = value if known is None else combine(known, value)
    return _write(merged)


def lasting(text: str) -> str:
    """What must be kept of a worker that has ended: its counters and histograms, without its gauges.

    Dropping a worker's counts would make the sums fall, which Prometheus takes for a restart of the whole server.
    """
    blocks = _read(text)
    return _write({name: b for name, b in blocks.items() if not b.about[-1].endswith(" gauge")})


def _read(text: str) -> dict[str, _Block]:
    blocks: dict[str, _Block] = {}
    block: _Block | None = None
    # Not splitlines(): a label may hold \r, \x85 or any other of the line ends that Unicode knows.
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if about := _ABOUT.fullmatch(line):
            block = blocks.setdefault(about[2], _Block())
            block.about.append(line)
            continue
        series = _SERIES.fullmatch(line)
        if series is None or block is None:
            raise ValueError(f"line {number} is not one this module writes: {line!r}")
        block.series[series[1]] = float(series[2])
    if text and not text.endswith("\n"):
        raise ValueError("the text is cut off: its last line has no end")
    return blocks


def _write(blocks: dict[str, _Block]) -> str:
    lines = (
        line
        for block in blocks.values()
        for line in (*block.about, *(f"{series} {_number(value)}" for series, value in block.series.items()))
    )
    return "".join(f"{line}\n" for line in lines)


def _add(one: float, other: float) -> float:
    return one + other


_WAYS: dict[str, Callable[[float, float], float]] = {"sum": _add, "max": max, "min": min}
_COMBINE = {metric_name(metric): _WAYS[metric.merge] for metric in catalogue.ALL}
