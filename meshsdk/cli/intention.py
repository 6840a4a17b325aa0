"""`meshsdk intention …`: who may call whom, as Consul keeps it and every meshed service obeys it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from meshsdk.cli.console import Exit, codes, data, fail, say
from meshsdk.cli.consul import connect, lookup
from meshsdk.errors import ConfigError
from meshsdk_registry import HeaderMatch, Intention, Permission

__all__ = ["app"]

app = typer.Typer(help="Who may call whom: allow, deny, list, delete.", no_args_is_help=True)

COLUMNS = ("intention", "decides", "precedence", "description")

Source = Annotated[str, typer.Argument(help="The calling service, or '*' for every one.", metavar="SOURCE")]
Destination = Annotated[str, typer.Argument(help="The called service, or '*' for every one.", metavar="DESTINATION")]
Path = Annotated[
    str, typer.Option("--path", help="Only calls to this path, or to all below it: /admin/* (Consul 1.9 and later).")
]
Methods = Annotated[
    list[str] | None, typer.Option("--method", help="Only calls of this method; may be repeated.", metavar="METHOD")
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", help="Only calls with this header (NAME or NAME=VALUE); may be repeated.", metavar="NAME"),
]
Append = Annotated[
    bool, typer.Option("--append", help="After the rules for this pair that are there, not in place of them.")
]
Description = Annotated[str | None, typer.Option("--description", help="Why; shown by `list`.")]
EXITS = codes("written", "Consul refused, or is too old for rules by path, method or header")


@app.command(epilog=EXITS)
def allow(
    source: Source,
    destination: Destination,
    *,
    path: Path = "",
    method: Methods = None,
    header: Headers = None,
    append: Append = False,
    description: Description = None,
) -> None:
    """Allow calls from SOURCE to DESTINATION, in place of what was written for this pair."""
    _write(
        "allow", source, destination, _permission("allow", path, method, header), append=append, description=description
    )


@app.command(epilog=EXITS)
def deny(
    source: Source,
    destination: Destination,
    *,
    path: Path = "",
    method: Methods = None,
    header: Headers = None,
    append: Append = False,
    description: Description = None,
) -> None:
    """Deny calls from SOURCE to DESTINATION, in place of what was written for this pair."""
    _write(
        "deny", source, destination, _permission("deny", path, method, header), append=append, description=description
    )


@app.command("list", epilog=codes("listed", "Consul refused, or answered something else"))
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List intentions; of those that fit a call the first decides. Calls that none fits get Consul's ACL default."""
    empty = "Consul knows no intention, or hides them from this token: its ACL default decides every call"
    data([_row(one) for one in asyncio.run(_all())], COLUMNS, as_json=as_json, remarks="note", empty=empty)


@app.command(epilog=codes("deleted", "there is none, or Consul refused"))
def delete(source: Source, destination: Destination) -> None:
    """Take away what was written for this pair; intentions with '*' or the ACL default decide again."""
    if not asyncio.run(_delete(_name(source), _name(destination))):
        fail(f"there is no intention {source} -> {destination}", "`meshsdk intention list` lists them")
        raise typer.Exit(Exit.PROBLEM)
    say(f"{source} -> {destination}: deleted")


def _name(service: str) -> str:
    return service if service == "*" else lookup(service)


def _permission(
    action: Literal["allow", "deny"], path: str, methods: Sequence[str] | None, headers: Sequence[str] | None
) -> Permission | None:
    """The rule that the options describe, None where they say nothing."""
    if not (path or methods or headers):
        return None
    exact, prefix = _path(path)
    return Permission(
        action,
        path_exact=exact,
        path_prefix=prefix,
        headers=tuple(_header(header) for header in headers or ()),
        methods=tuple(method.upper() for method in methods or ()),
    )


def _path(path: str) -> tuple[str, str]:
    start = path.removesuffix("*")
    if path and (not path.startswith("/") or "*" in start or (start != path and not start.endswith("/"))):
        raise ConfigError(f"--path {path!r}: write '/v1/pay' for one path, '/v1/*' for all below it")
    return ("", start) if start != path else (path, "")


def _header(text: str) -> HeaderMatch:
    name, equals, value = text.partition("=")
    if not name or (equals and not value):
        raise ConfigError(f"--header {text!r}: write NAME for a header that must be there, or NAME=VALUE")
    return HeaderMatch(name, exact=value) if equals else HeaderMatch(name, present=True)


def _write(
    action: Literal["allow", "deny"],
    source: str,
    destination: str,
    permission: Permission | None,
    *,
    append: bool,
    description: str | None,
) -> None:
    if append and permission is None:
        raise ConfigError(f"--append adds a rule for some calls: say which by --path, --method or --header; {action}")
    old = asyncio.run(
        _put(action, _name(source), _name(destination), permission, append=append, description=description)
    )
    now = [*(old.permissions if old and append else ()), *([permission] if permission else [])]
    decides = "; ".join(map(_rule, now)) or action
    say(f"{source} -> {destination}: {decides}")
    if old and not append and (was := _decides(old)) != decides:
        say(f"  in place of: {was}")


async def _put(
    action: Literal["allow", "deny"],
    source: str,
    destination: str,
    permission: Permission | None,
    *,
    append: bool,
    description: str | None,
) -> Intention | None:
    """Write, and return what was there."""
    async with connect() as consul:
        found = (await consul.intentions()).value
        pair = (source, destination, "")
        old = next((one for one in found if (one.source, one.destination, one.foreign) == pair), None)
        if append and old and not old.permissions:
            raise ConfigError(f"--append: {source} -> {destination} has no rules to add to, it says {old.action}")
        kept = old.permissions if old and append else ()
        rules = [*kept, permission] if permission else []
        await consul.put_intention(source, destination, "" if rules else action, rules, description=description)
        return old


async def _all() -> tuple[Intention, ...]:
    async with connect() as consul:
        return (await consul.intentions()).value


async def _delete(source: str, destination: str) -> bool:
    async with connect() as consul:
        return await consul.delete_intention(source, destination)


def _row(one: Intention) -> dict[str, Any]:
    notes = [_rule(permission) for permission in one.permissions]
    if one.foreign:
        notes.append(f"of {one.foreign}: says nothing about services of this datacenter's own")
    if one.unknown:
        notes.append(f"only with {', '.join(one.unknown)}, which this mesh does not read")
    return {
        "intention": f"{one.source} -> {one.destination}",
        "decides": one.action or f"{len(one.permissions)} rules",
        "precedence": one.precedence,
        "description": one.description,
        "id": one.id,
        "source": one.source,
        "destination": one.destination,
        "note": notes,
    }


def _decides(one: Intention) -> str:
    return one.action or "; ".join(map(_rule, one.permissions))


def _rule(permission: Permission) -> str:
    """One rule in words."""
    path = permission.path_exact or (permission.path_prefix and f"{permission.path_prefix}*")
    path = path or (permission.path_regex and f"~{permission.path_regex}")
    headers = [_condition(header) for header in permission.headers]
    unknown = [f"{name} (not read by this mesh)" for name in permission.unknown]
    return " ".join([permission.action, *permission.methods, *([path] if path else []), *headers, *unknown])


def _condition(header: HeaderMatch) -> str:
    kinds = ("exact", "prefix", "suffix", "contains", "regex")
    found = next((f" {kind} {value}" for kind in kinds if (value := getattr(header, kind))), "")
    return f"{'without' if header.invert else 'with'} {header.name}{found}"
