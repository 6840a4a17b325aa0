"""`meshsdk ca …`: the authority that signs the mesh's certificates: what it is, and how to give it a new root."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from meshsdk.cli.console import Exit, codes, data, fail, out, print_json, say
from meshsdk.cli.consul import connect
from meshsdk_registry import Root, Roots

__all__ = ["app"]

app = typer.Typer(help="The authority that signs certificates: show it, rotate it.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

COLUMNS = ("root", "state", "expires", "name")

_SHOWN = len("00:11:22:33:44:55:66:77")
"""Of an id in the table: enough to tell roots apart, and a row fits into 80 columns. JSON has the whole."""


@app.command(epilog=codes("shown", "the root that signs has run out, or Consul refused"))
def show(as_json: Json = False) -> None:
    """Print the trust domain and the roots that everybody trusts: the one that signs, and former ones."""
    roots, now = asyncio.run(_roots()), datetime.now(UTC)
    _print(roots, now, as_json)
    active = roots.roots[0]
    if active.not_after <= now:
        fail(f"the root that signs ran out at {_time(active.not_after)}: nobody trusts what it signs", _HINT)
        raise typer.Exit(Exit.PROBLEM)


@app.command(epilog=codes("rotated", "another provider than Consul's own signs, or Consul refused"))
def rotate(as_json: Json = False) -> None:
    """Give the authority a new key and root. Callers go on: the former root vouches for the new one and stays trusted.

    Certificates of services are signed anew by themselves: Consul takes up to 30 seconds, the dev agent less than one.
    """
    _print(asyncio.run(_rotated()), datetime.now(UTC), as_json)
    say("rotated; every service has its new certificate within 30 seconds")


_HINT = "`meshsdk ca rotate` makes a new one"


async def _roots() -> Roots:
    async with connect() as consul:
        return (await consul.roots()).value


async def _rotated() -> Roots:
    async with connect() as consul:
        return await consul.rotate_ca()


def _print(roots: Roots, now: datetime, as_json: bool) -> None:
    rows = [_row(root, now) for root in roots.roots]
    if as_json:
        print_json({"trust_domain": roots.trust_domain, "active": roots.active_id, "roots": rows})
        return
    out.print(f"trust domain {roots.trust_domain}", markup=False)
    data(rows, COLUMNS, as_json=False)


def _row(root: Root, now: datetime) -> dict[str, Any]:
    state = "expired" if root.not_after <= now else "signs" if root.active else "trusted"
    return {
        "root": root.id[:_SHOWN],
        "state": state,
        "expires": _time(root.not_after),
        "name": root.name,
        "id": root.id,
        "active": root.active,
        "days_left": max(0, (root.not_after - now).days),
        "pem": root.pem,
        "intermediates": list(root.intermediates),
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
