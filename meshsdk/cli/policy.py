"""`meshsdk policy …`: check documents, see what they would change, put them in force."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from meshsdk.cli import policy_change, policy_files
from meshsdk.cli.console import Exit, clean, codes, fail, out, print_json, say
from meshsdk.cli.consul import connect, destination
from meshsdk.cli.documents import MESH_WIDE, PREFIX, Documents, documents
from meshsdk.errors import ConfigError, PolicyError
from meshsdk.policy.diff import Change
from meshsdk.policy.effective import dump
from meshsdk.policy.schema import schema

__all__ = ["app"]

app = typer.Typer(help="Policy documents: check, compare, apply.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Files = Annotated[
    list[Path],
    typer.Argument(
        help="YAML or JSON; <service>.yaml is the document of <service>, _mesh.yaml the mesh's.", metavar="FILE…"
    ),
]
File = Annotated[Path, typer.Argument(help="A YAML or JSON file.", metavar="FILE")]
Name = Annotated[
    str, typer.Argument(help="A service's name, or _mesh for the defaults of the mesh.", metavar="SERVICE")
]
As = Annotated[
    str | None, typer.Option("--service", help="Whose document it is, where the file's name does not say it.")
]
MeshWide = Annotated[bool, typer.Option("--mesh-wide", help="Of the defaults in _mesh, which have no `from`.")]


@app.command(epilog=codes("all are fine", "a document has mistakes", consul=False))
def validate(files: Files, as_json: Json = False) -> None:
    """Check documents without Consul, each alone and over the _mesh file among them; print every mistake."""
    verdicts = policy_files.judge(files)
    if as_json:
        print_json([{"file": str(verdict.path), "mistakes": verdict.mistakes} for verdict in verdicts])
    for verdict in () if as_json else verdicts:
        if verdict.mistakes:
            fail(str(PolicyError(str(verdict.path), verdict.mistakes)))
        else:
            say(f"{verdict.path}: fine")
    if any(verdict.mistakes for verdict in verdicts):
        raise typer.Exit(Exit.PROBLEM)


@app.command(
    epilog=codes(
        "in force", "nothing was written: a mistake, a document that would no longer fit, or somebody else's change"
    )
)
def apply(files: Files, service: As = None, as_json: Json = False) -> None:
    """Put documents in force, all or none: they must fit with all that stands in Consul, unchanged meanwhile."""
    if service is not None and len(files) > 1:
        raise ConfigError("--service names the document of one file; give one file, or name the files <service>.yaml")
    applied = asyncio.run(policy_change.apply([policy_files.read_file(file, service) for file in files]))
    if as_json:
        print_json([asdict(each) for each in applied])
        return
    for each in applied:
        if each.replaced:
            say(f"{each.service}: replaces a document that every process rejected: {'; '.join(each.replaced)}")
        _show(each.service, each.changes, "in force", "in force; nothing changes for callers")


@app.command(epilog=codes("printed", "there is no such document, or one with mistakes"))
def get(
    service: Name,
    effective_: Annotated[bool, typer.Option("--effective", help="Print every value in force, defaults too.")] = False,
    caller: Annotated[str, typer.Option(help="With --effective: as this service sees it.")] = "",
    as_json: Json = False,
) -> None:
    """Print a document as it stands in Consul, or what it comes to."""
    destination(service, (MESH_WIDE,))
    if caller and not effective_:
        raise ConfigError("--caller chooses among effective values: add --effective")
    found = asyncio.run(_documents())
    if effective_:
        values = _effective(service, caller, found)
        out.print(_text(values, as_json), markup=False, end="")
        return
    entry = found.entries.get(service)
    if entry is None:
        hint = f"`meshsdk policy get {service} --effective` shows what is in force without one"
        fail(f"no document {PREFIX}{service}", hint)
        raise typer.Exit(Exit.PROBLEM)
    mistakes = found.mistakes.get(service, ())
    if as_json:
        text = (entry.value or b"").decode("utf-8", "replace")
        print_json({"service": service, "policy": found.label(service), "text": text, "mistakes": mistakes})
    else:
        _print_raw(entry.value or b"")
    if mistakes:
        fail(str(PolicyError(found.label(service), mistakes)), "every process goes on with its last good one")
        raise typer.Exit(Exit.PROBLEM)


@app.command("diff", epilog=codes("nothing would change", "something would, or the document has mistakes"))
def diff_(service: Name, file: File, as_json: Json = False) -> None:
    """Print what a file would change for callers, against what is in Consul."""
    document = policy_files.read_file(file, service)
    changes = policy_change.changes(asyncio.run(_documents()), document)
    if as_json:
        print_json([asdict(change) for change in changes])
    else:
        _show(service, changes, "would change", "nothing would change for callers")
    if changes:
        raise typer.Exit(Exit.PROBLEM)


@app.command(epilog=codes("deleted", "there is none, or others fit only over it"))
def delete(service: Name) -> None:
    """Take a document away: the mesh's defaults are in force again, or the built-in ones."""
    if not asyncio.run(policy_change.delete(destination(service, (MESH_WIDE,)))):
        fail(f"there is no document {PREFIX}{service}", "`meshsdk services` lists the documents there are")
        raise typer.Exit(Exit.PROBLEM)
    say(f"{service}: document deleted")


@app.command("schema", epilog=codes("printed", consul=False))
def schema_(mesh_wide: MeshWide = False) -> None:
    """Print the JSON schema of a document, for editors (`# yaml-language-server: $schema=FILE`)."""
    print_json(schema(mesh_wide=mesh_wide))


async def _documents() -> Documents:
    async with connect() as consul:
        return await documents(consul)


def _effective(service: str, caller: str, found: Documents) -> dict[str, Any]:
    """What a process that starts now obeys; the documents with mistakes are told."""
    for name in (service, MESH_WIDE):
        if name in found.mistakes:
            fail(str(PolicyError(found.label(name), found.mistakes[name])), "it is in nobody's force; shown without it")
    plan = found.plan(service, caller)
    return {"policy": plan.version, **dump(plan)}


def _print_raw(text: bytes) -> None:
    """Byte for byte into a file or pipe, so that it can be applied again; harmless on a terminal."""
    if out.is_terminal:
        sys.stdout.write(clean(text.decode("utf-8", "replace").expandtabs()).rstrip("\n") + "\n")
    else:
        sys.stdout.buffer.write(text)


def _show(service: str, changes: Sequence[Change], title: str, nothing: str) -> None:
    say(f"{service}: {title if changes else nothing}")
    for change in changes:
        out.print(f"  {change.path}: {_plain(change.before)} → {_plain(change.after)}", markup=False)


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value)


def _text(values: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(values, indent=2) + "\n"
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)
