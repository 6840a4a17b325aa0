"""`meshsdk services`: every service, how many instances get calls, and what policy is written and obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from meshsdk.cli import survey
from meshsdk.cli.console import codes, data
from meshsdk.cli.consul import connect
from meshsdk.cli.documents import MESH_WIDE, PREFIX, Documents, documents

__all__ = ["EXITS", "services"]

COLUMNS = ("service", "passing", "instances", "policy", "obeyed")
EXITS = codes("listed, whatever is wrong with the services", "Consul refused, or answered something else")


def services(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List services: instances that get calls, the policy in Consul and what callers say they obey, problems below."""
    rows = asyncio.run(_rows())
    data(rows, COLUMNS, as_json=as_json, remarks="problem", empty="Consul knows no service yet")


async def _rows() -> list[dict[str, Any]]:
    async with connect() as consul:
        names = set((await consul.services()).value)
        found = await documents(consul)
        everybody = await survey.services(consul, (names | set(found.entries)) - {"consul", MESH_WIDE}, found)
    return [*(_row(service, found, everybody) for service in everybody), *_documents(found, everybody)]


def _row(service: survey.Service, found: Documents, everybody: Sequence[survey.Service]) -> dict[str, Any]:
    return {
        "service": service.name,
        "passing": service.passing,
        "instances": len(service.instances),
        "policy": found.version(service.name),
        "obeyed": survey.obeyed(service.name, everybody),
        "problem": [*_mistakes(service.name, found), *service.problems()],
    }


def _documents(found: Documents, everybody: Sequence[survey.Service]) -> Iterator[dict[str, Any]]:
    """What stands beside the services' documents: the mesh's own, and keys that nobody reads."""
    nobody = {"passing": None, "instances": None}
    if MESH_WIDE in found.entries:
        obeyed, mistakes = survey.obeyed(MESH_WIDE, everybody), _mistakes(MESH_WIDE, found)
        policy = found.version(MESH_WIDE)
        yield {"service": MESH_WIDE, **nobody, "policy": policy, "obeyed": obeyed, "problem": mistakes}
    for name in found.strays:
        problem = f"the key {PREFIX + name!r} names no service and nobody reads it: delete it"
        yield {"service": name, **nobody, "policy": "unread", "obeyed": [], "problem": [problem]}


def _mistakes(name: str, found: Documents) -> list[str]:
    return [f"policy {found.label(name)} is rejected: {line}" for line in found.mistakes.get(name, ())]
