"""`meshsdk endpoints SERVICE`: every instance, whether callers use it and why not, and the policy it obeys."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from meshsdk.cli import survey
from meshsdk.cli.console import Exit, codes, data, fail
from meshsdk.cli.consul import connect, lookup
from meshsdk.cli.documents import documents
from meshsdk.discovery.endpoints import endpoints as usable
from meshsdk_registry import Health, Instance

__all__ = ["EXITS", "endpoints"]

COLUMNS = ("instance", "address", "zone", "weight", "health", "used", "obeys")
EXITS = codes("listed", "Consul knows no instance, or refused")


def endpoints(
    service: Annotated[str, typer.Argument(help="The service's name.", metavar="SERVICE")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List a service's instances as Consul knows them: health, whether callers use them, the policy each obeys.

    Ejection is every caller's own judgement and not in Consul: a caller's metrics page counts the endpoints it has
    ejected (mesh_client_endpoints).
    """
    found = asyncio.run(_survey(lookup(service)))
    if not found.instances:
        fail(f"Consul knows no instance of {service!r}", "`meshsdk services` lists what it knows")
        raise typer.Exit(Exit.PROBLEM)
    refusals = {line.partition(": ")[0]: line for line in usable(found.instances)[1]}
    clear = found.unencrypted()
    rows = [_row(instance, found, refusals, clear) for instance in found.instances]
    data(rows, COLUMNS, as_json=as_json, remarks="note")


async def _survey(service: str) -> survey.Service:
    async with connect() as consul:
        return await survey.service(consul, service, await documents(consul))


def _row(
    instance: Instance, found: survey.Service, refusals: dict[str, str], unencrypted: dict[tuple[str, str], str]
) -> dict[str, Any]:
    host = f"[{instance.address}]" if ":" in instance.address.strip("[]") else instance.address
    refusal = refusals.get(f"{instance.id} on {instance.node}")
    clear = unencrypted.get((instance.node, instance.id))
    notes = [line for line in (refusal, clear) if line]
    return {
        "instance": instance.id,
        "node": instance.node,
        "address": f"{host}:{instance.port}",
        "zone": instance.meta.get("zone") or None,
        "weight": instance.weight,
        "health": instance.health.value,
        "used": "no" if clear else _used(instance),
        "obeys": list(found.obeys.get((instance.node, instance.id), ())),
        "note": [_about(line) for line in [*notes, *survey.ailments(instance)]],
    }


def _used(instance: Instance) -> str:
    found = usable((instance,))[0]
    return "no" if not found else "in panic only" if instance.health is Health.CRITICAL else "yes"


def _about(line: str) -> str:
    """Without the name, which the row has."""
    return line.partition(": ")[2]
