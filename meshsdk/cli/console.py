"""What a person or a pipe reads: data on stdout (tables or JSON), words on stderr, colour only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Exit", "data", "err", "fail", "out", "say"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    PROBLEM = 1
    USAGE = 2
    NO_CONSUL = 3


def data(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str = "") -> None:
    """Print rows: as JSON, or as a table of `columns` (keys of the rows; a list becomes one line each).

    Args:
        rows: JSON-able records; they may hold more than the columns show.
        empty: said on stderr where there are no rows (JSON prints `[]`).
    """
    if as_json:
        json.dump(list(rows), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    if not rows:
        say(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    out.print(table, soft_wrap=False)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return "\n".join(str(item) for item in value)
    return str(value)


def say(text: str) -> None:
    """Print words for a person on stderr."""
    err.print(text, markup=False)


def fail(text: str, hint: str = "") -> None:
    """Print an error, and what to do about it, on stderr."""
    err.print("[bold red]error:[/] ", end="")
    err.print(text, markup=False)
    if hint:
        err.print("[bold]hint:[/] ", end="")
        err.print(hint, markup=False)
