"""`meshsdk services`: every service, how many instances may be called, and what policy they obey."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from meshsdk.cli.console import data
from meshsdk.cli.consul import Documents, connect, documents
from meshsdk_registry import Consul, Health

__all__ = ["services"]

COLUMNS = ("service", "passing", "instances", "policy", "problem")


def services(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List services with their instances, the policy in KV, and what is wrong with either."""
    rows = asyncio.run(_rows())
    data(rows, COLUMNS, as_json=as_json, empty="Consul knows no service yet")


async def _rows() -> list[dict[str, Any]]:
    async with connect() as consul:
        names = (await consul.services()).value
        found = await documents(consul)
        wanted = sorted((set(names) | set(found.by_service)) - {"consul", "_mesh"})
        return [await _row(consul, name, found) for name in wanted]


async def _row(consul: Consul, name: str, found: Documents) -> dict[str, Any]:
    instances = (await consul.instances(name)).value
    return {
        "service": name,
        "passing": sum(instance.health is Health.PASSING for instance in instances),
        "instances": len(instances),
        "policy": found.version(name),
        "problem": [*found.problems(name), *_sick(instances)],
    }


def _sick(instances: Any) -> list[str]:
    return [
        f"{instance.id}: {instance.health.value}{f' ({instance.output.strip()})' if instance.output.strip() else ''}"
        for instance in instances
        if instance.health is not Health.PASSING
    ]
