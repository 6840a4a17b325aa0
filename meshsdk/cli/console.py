"""What a person or a pipe reads: data on stdout (tables or JSON), words on stderr, style only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshsdk.errors import ConfigError

__all__ = ["Exit", "clean", "codes", "data", "fail", "out", "part_of", "print_json", "say", "tolerant"]

_PIPE_WIDTH = 10_000
"""Columns where nobody looks: a table in a pipe has one line per row, whatever the terminal's width."""


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    PROBLEM = 1
    USAGE = 2
    NO_CONSUL = 3


def codes(ok: str, problem: str = "", *, consul: bool = True) -> str:
    """The line about exit codes at the end of a command's help; `problem` is empty where there is no code 1."""
    found = f"; 1 {problem}" if problem else ""
    asked = "; 3 Consul does not answer" if consul else ""
    return f"Exit codes: 0 {ok}{found}; 2 wrong usage, setting or file{asked}."


class _Stream(Console):
    def on_broken_pipe(self) -> None:
        """Let the command end instead of the process: the one place for exit codes decides."""
        raise BrokenPipeError


def _stream(*, stderr: bool = False) -> Console:
    """NO_COLOR asks rich for no colours; we take bold and the like away with them (no-color.org leaves that open)."""
    stream = _Stream(stderr=stderr, highlight=False, soft_wrap=True)
    return _Stream(stderr=stderr, highlight=False, soft_wrap=True, color_system=None) if stream.no_color else stream


out = _stream()
err = _stream(stderr=True)


def tolerant() -> None:
    """Let a terminal that cannot show a character show `?` instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def data(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    remarks: str = "",
    empty: str = "",
) -> None:
    """Print rows: as JSON, or as a table with the remarks below it.

    Args:
        rows: JSON-able records; they may hold more than the table shows.
        columns: keys of the rows that are shown; the first one names a row.
        remarks: the key of each row's list of sentences, printed below the table: a column would squeeze them.
        empty: said on stderr where there are no rows (JSON prints `[]`).
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        say(empty)
        return
    out.print(_table(rows, columns), soft_wrap=False, width=None if out.is_terminal else _PIPE_WIDTH)
    lines = [(str(row[columns[0]]), line) for row in rows for line in row.get(remarks, ())]
    if lines:
        out.print()
    for name, line in lines:
        out.print(Text.assemble((name, "bold"), f": {clean(line)}"))


def print_json(value: Any) -> None:
    """Print JSON for programs, as ASCII."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: Any) -> Text:
    """As text, never as markup: names and outputs are others' words."""
    if value is None or value in ("", []):
        return Text("-")
    return Text(clean(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))


def clean(text: str) -> str:
    """Others' text without what a terminal would obey (escape sequences)."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text)


def say(text: str) -> None:
    """Print words for a person on stderr."""
    err.print(clean(text), markup=False)


def fail(text: str, hint: str = "") -> None:
    """Print an error, and what to do about it, on stderr."""
    err.print(Text.assemble(("error:", "bold red"), f" {clean(text)}"))
    if hint:
        err.print(Text.assemble(("hint:", "bold"), f" {clean(hint)}"))


@contextmanager
def part_of(extra: str) -> Iterator[None]:
    """Within, a package that is not installed is told with the command that installs it.

    Raises:
        ConfigError: an import failed because a package of `extra` is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0].startswith("meshsdk"):
            raise
        raise ConfigError(
            f"this command needs {error.name}, which is not installed: pip install 'meshsdk[{extra}]'"
        ) from error
