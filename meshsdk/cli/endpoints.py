"""`meshsdk endpoints SERVICE`: every instance, whether callers use it and why not, and the policy it obeys."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from meshsdk.cli.console import Exit, data, fail
from meshsdk.cli.consul import connect
from meshsdk.discovery.endpoints import endpoints as usable_endpoints
from meshsdk_registry import Instance

__all__ = ["endpoints"]

COLUMNS = ("instance", "address", "zone", "weight", "health", "used", "note")


def endpoints(
    service: Annotated[str, typer.Argument(help="The service's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the instances of a service as callers see them."""
    instances = asyncio.run(_instances(service))
    if not instances:
        fail(f"Consul knows no instance of {service!r}", "`meshsdk services` lists what it knows")
        raise typer.Exit(Exit.PROBLEM)
    rows = [_row(instance) for instance in instances]
    data(rows, COLUMNS, as_json=as_json)


async def _instances(service: str) -> tuple[Instance, ...]:
    async with connect() as consul:
        return (await consul.instances(service)).value


def _row(instance: Instance) -> dict[str, Any]:
    found, refusals = usable_endpoints((instance,))
    host = f"[{instance.address}]" if ":" in instance.address else instance.address
    used = "yes" if any(endpoint.healthy for endpoint in found) else "in panic only" if found else "no"
    return {
        "instance": instance.id,
        "node": instance.node,
        "address": f"{host}:{instance.port}",
        "zone": instance.meta.get("zone") or None,
        "weight": instance.weight,
        "health": instance.health.value,
        "used": used,
        "note": [*refusals, *([instance.output.strip()] if instance.output.strip() else [])],
    }
