"""What mutual TLS costs: a call on connections that are kept, and a new connection with its handshake.

    python benchmarks/identity.py [--seconds 90] [--only TEXT]

The responder of `client.py`, in a process and on a core of its own, listens in clear text and for mutual TLS 1.3 with
`Identity.server_context`, as the mesh's own port does. `ours` has every feature on; with mTLS its connections come from
`Identity.client_security`, so the peer's SPIFFE id is checked. `httpx, mTLS` is stock httpx with the same certificate,
without that check. Through the pair of Envoys the client speaks clear text, and they mTLS. `connect + call` makes a
connection, uses it once and closes it: calls/s are handshakes/s there. No session is resumed, as servers of the mesh
hand out no tickets.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx

from benchmarks.callers import AsyncHttpx, Httpx, at, begin_trace, ours, ours_sync, stock
from benchmarks.client import ROUNDS, async_line, sync_line
from benchmarks.servers import Stage, loaded, stage
from benchmarks.table import Bar, Line, Measured
from meshsdk.identity.contexts import client_context

T = TypeVar("T", AsyncHttpx, Httpx)
Makers = Mapping[str, Callable[[Stage], T]]

LOOPS = ("uvloop", "asyncio", "sync")
LINES = [Line(loop, at_a_time, "/small", fresh) for fresh in (False, True) for loop in LOOPS for at_a_time in (1, 16)]
BARS = [Bar(Line(loop, 1, "/small"), "ours, mTLS", "httpx", 0.45) for loop in LOOPS]


# --- the rows -----------------------------------------------------------------------------------------


def _secured(stage: Stage) -> dict[str, Any]:
    return {**stock(httpx), "verify": client_context(stage.caller)}


def _secured_at(stage: Stage) -> str:
    return f"https://127.0.0.1:{stage.secured[0]}"


ASYNC: Makers[AsyncHttpx] = {
    "httpx": lambda stage: AsyncHttpx(httpx.AsyncClient(**stock(httpx)), at(stage.ports[0])),
    "httpx, mTLS": lambda stage: AsyncHttpx(httpx.AsyncClient(**_secured(stage)), _secured_at(stage)),
    "httpx, Envoy pair": lambda stage: AsyncHttpx(httpx.AsyncClient(**stock(httpx)), at(stage.envoy)),
    "ours, clear text": ours,
    "ours, mTLS": lambda stage: ours(stage, secured=True),
}
SYNC: Makers[Httpx] = {
    "httpx": lambda stage: Httpx(httpx.Client(**stock(httpx)), at(stage.ports[0])),
    "httpx, mTLS": lambda stage: Httpx(httpx.Client(**_secured(stage)), _secured_at(stage)),
    "httpx, Envoy pair": lambda stage: Httpx(httpx.Client(**stock(httpx)), at(stage.envoy)),
    "ours, clear text": ours_sync,
    "ours, mTLS": lambda stage: ours_sync(stage, secured=True),
}


def fresh(make: Callable[[Stage], T]) -> Callable[[Stage], T]:
    """The same client, with each call on a connection of its own."""

    def making(stage: Stage) -> T:
        caller = make(stage)
        caller.http.headers["connection"] = "close"
        return caller

    return making


def rows(line: Line, makers: Makers[T]) -> Makers[T]:
    """The clients of one line; the connection to an Envoy is in clear text, so making one tells nothing of mTLS."""
    if not line.fresh:
        return makers
    return {name: fresh(make) for name, make in makers.items() if "Envoy" not in name}


# --- all of them --------------------------------------------------------------------------------------


def measure(line: Line, stage: Stage, seconds: float) -> Measured:
    """One line, for so many seconds."""
    each = seconds / len(rows(line, SYNC)) / (ROUNDS + 1)
    if line.loop == "sync":
        return sync_line(line, stage, seconds, each, rows(line, SYNC))
    return async_line(line, stage, seconds, each, rows(line, ASYNC))


def run(lines: list[Line], seconds: float) -> None:
    """Measure `lines` for so many seconds in all and hold them against the bars."""
    found = {}
    with stage() as there:
        load = " ".join(f"{each:.1f}" for each in os.getloadavg())
        print(f"load {load}; under wrk, 16 at a time: {', '.join(loaded(there, 1))}\n")
        for line in lines:
            found[line] = measure(line, there, seconds / len(lines))
            print(found[line].table(), flush=True)
    print(f"\n{'bars':<76}{'measured':>7}")
    for bar in BARS:
        if bar.line in found:
            print(bar.verdict(found[bar.line]))
    for line, measured in found.items():
        if line.fresh:
            cost = measured.more("ours, mTLS", "ours, clear text")
            print(f"{line!s:<38}{'a handshake (ours, less clear text)':<38}{cost * 1e6:>7.0f} µs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=90.0, help="how long it may take in all, about")
    parser.add_argument("--only", default="", metavar="TEXT", help="only lines with this text, such as 'uvloop, 1 at'")
    given = parser.parse_args()
    lines = [line for line in LINES if given.only in str(line)]
    if not lines:
        parser.error(f"--only {given.only!r}: no such line; there are: {'; '.join(map(str, LINES))}")
    begin_trace()
    run(lines, given.seconds)


if __name__ == "__main__":
    main()
