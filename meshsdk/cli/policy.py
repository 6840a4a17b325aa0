"""`meshsdk policy …`: check documents, see what they would change, put them in force."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from meshsdk.cli.console import Exit, data, fail, out, say
from meshsdk.cli.consul import MESH_WIDE, PREFIX, connect, read
from meshsdk.config import SERVICE_NAME
from meshsdk.errors import ConfigError, MeshError, PolicyError
from meshsdk.policy.diff import Change, diff
from meshsdk.policy.document import Document, parse
from meshsdk.policy.effective import dump, effective
from meshsdk.policy.schema import schema
from meshsdk_registry import Consul, KeyValue

__all__ = ["app"]

app = typer.Typer(help="Policy documents: check, compare, apply.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Files = Annotated[list[Path], typer.Argument(help="YAML or JSON files; <service>.yaml is the document of <service>.")]
File = Annotated[Path, typer.Argument(help="A YAML or JSON file.")]
Name = Annotated[str, typer.Argument(help="A service's name, or _mesh for the defaults of the mesh.")]
As = Annotated[str | None, typer.Option("--service", help="The service, where the file's name does not say it.")]


class Outdated(MeshError):
    """The document in KV changed between reading and writing."""


@app.command()
def validate(files: Files) -> None:
    """Check documents without touching Consul; every mistake of every file is printed."""
    wrong = 0
    for file in files:
        try:
            _parse_file(file, _name(file, None))
        except PolicyError as error:
            wrong += 1
            fail(str(error))
        else:
            say(f"{file}: fine")
    if wrong:
        raise typer.Exit(Exit.PROBLEM)


@app.command()
def apply(files: Files, service: As = None) -> None:
    """Put documents in force: checked against the mesh's defaults, written only if nobody else wrote meanwhile."""
    if service is not None and len(files) > 1:
        raise ConfigError("--service names the document of one file; give one file, or name the files <service>.yaml")
    for file in files:
        name = _name(file, service)
        document = _parse_file(file, name)
        _show(asyncio.run(_apply(name, document, file.read_bytes())), f"{name}: in force", "nothing changes")


@app.command()
def get(
    service: Name,
    effective_: Annotated[bool, typer.Option("--effective", help="Print every value in force, defaults too.")] = False,
    caller: Annotated[str, typer.Option(help="With --effective: as this service sees it.")] = "",
    as_json: Json = False,
) -> None:
    """Print a service's document as it stands in Consul, or what it comes to."""
    own, mesh = asyncio.run(_entries(service))
    if not effective_:
        if own is None:
            fail(
                f"no document {PREFIX}{service}: the defaults are in force", "meshsdk policy get --effective shows them"
            )
            raise typer.Exit(Exit.PROBLEM)
        sys.stdout.write((own.value or b"").decode("utf-8", "replace"))
        return
    plan = effective(caller, service, _document(mesh), _document(own))
    values = {"policy": plan.version, **dump(plan)}
    out.print(_text(values, as_json), markup=False, end="")


@app.command("diff")
def diff_(service: Name, file: File, as_json: Json = False) -> None:
    """Print what a file would change for callers, against what is in Consul; exit code 1 if anything."""
    own, mesh = asyncio.run(_entries(service))
    document = _parse_file(file, service)
    changes = diff(_document(own), document, _document(mesh) if service != MESH_WIDE else None)
    if as_json:
        data([asdict(change) for change in changes], (), as_json=True)
    else:
        _show(changes, f"{service}: would change", "nothing would change")
    if changes:
        raise typer.Exit(Exit.PROBLEM)


@app.command()
def delete(service: Name) -> None:
    """Take a service's document away: the mesh's defaults are in force for it."""
    if not asyncio.run(_delete(service)):
        fail(f"there is no document {PREFIX}{service}")
        raise typer.Exit(Exit.PROBLEM)
    say(f"{service}: document deleted")


@app.command("schema")
def schema_(
    mesh_wide: Annotated[
        bool, typer.Option("--mesh-wide", help="Of the defaults in _mesh, which have no `from`.")
    ] = False,
) -> None:
    """Print the JSON schema of a document, for editors (`# yaml-language-server: $schema=FILE`)."""
    json.dump(schema(mesh_wide=mesh_wide), sys.stdout, indent=2)
    sys.stdout.write("\n")


async def _entries(service: str) -> tuple[KeyValue | None, KeyValue | None]:
    """Read the service's document and the mesh's (None for `_mesh` itself, which has no defaults under it)."""
    async with connect() as consul:
        return await _entry(consul, service), await _entry(consul, MESH_WIDE) if service != MESH_WIDE else None


async def _entry(consul: Consul, name: str) -> KeyValue | None:
    return (await consul.key(PREFIX + name)).value


async def _apply(name: str, document: Document, text: bytes) -> list[Change]:
    """Write the text of the document unless somebody else wrote since we looked (Consul's check-and-set)."""
    async with connect() as consul:
        before = await _entry(consul, name)
        mesh = await _entry(consul, MESH_WIDE) if name != MESH_WIDE else None
        changes = diff(_or_none(before), document, _or_none(mesh))
        written = await consul.put(PREFIX + name, text, cas=before.modify_index if before else 0)
    if not written:
        raise Outdated(
            f"{PREFIX}{name} was changed by somebody else just now: look at `meshsdk policy diff`, apply again"
        )
    return changes


async def _delete(name: str) -> bool:
    async with connect() as consul:
        if await _entry(consul, name) is None:
            return False
        return await consul.delete(PREFIX + name)


def _document(entry: KeyValue | None) -> Document | None:
    return read(entry) if entry is not None else None


def _or_none(entry: KeyValue | None) -> Document | None:
    """A document in KV that is broken is in nobody's force: what replaces it is compared with none."""
    try:
        return _document(entry)
    except PolicyError as error:
        fail(str(error), "what is in Consul now is rejected by every process; this replaces it")
        return None


def _name(file: Path, service: str | None) -> str:
    name = service or file.stem
    if name != MESH_WIDE and not SERVICE_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no service's name: name the file <service>.yaml, or give --service")
    return name


def _parse_file(file: Path, name: str) -> Document:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    try:
        return parse(text, PREFIX + name)
    except PolicyError as error:
        raise PolicyError(str(file), error.mistakes) from error


def _show(changes: list[Change], title: str, nothing: str) -> None:
    if not changes:
        say(f"{title.partition(':')[0]}: {nothing}")
        return
    say(title)
    for change in changes:
        out.print(f"  {change.path}: {_plain(change.before)} → {_plain(change.after)}", markup=False)


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, (str, int, float)) else json.dumps(value)


def _text(values: dict[str, Any], as_json: bool) -> str:
    if as_json:
        return json.dumps(values, indent=2) + "\n"
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)
