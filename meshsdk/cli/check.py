"""`meshsdk check`: what is wrong between this machine and Consul, each finding with its remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from meshsdk.cli import survey
from meshsdk.cli.console import Exit, clean, codes, out, print_json
from meshsdk.cli.consul import consul_at
from meshsdk.cli.documents import PREFIX, Documents, documents
from meshsdk.config import Settings, load
from meshsdk.discovery.disk import problem_with
from meshsdk.discovery.endpoints import endpoints
from meshsdk.errors import ConfigError
from meshsdk_registry import Consul, Denied, NoLeader, RegistryError, Rejected, Unreachable

__all__ = ["EXITS", "Finding", "check"]

PROBE_KEY = "mesh/check/probe"
EXITS = codes("nothing is broken (there may be warnings)", "something is")
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `ok`, `warn` or `fail`, what was seen, and the remedy where one is needed."""

    subject: str
    state: str
    seen: str
    remedy: str = ""


def check(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at everything between this machine and Consul, and say what to do about what is wrong."""
    findings, code = asyncio.run(_collect())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    for finding in () if as_json else findings:
        _print(finding)
    if code:
        raise typer.Exit(code)


def _print(finding: Finding) -> None:
    state = (f"{finding.state:<4}", COLOURS[finding.state])
    out.print(Text.assemble(state, " ", (finding.subject, "bold"), f": {clean(finding.seen)}"))
    if finding.remedy:
        out.print(Text(f"     {clean(finding.remedy)}"))


async def _collect() -> tuple[list[Finding], Exit]:
    try:
        settings = load({"service": "meshsdk-check"})
        consul = consul_at(settings)
    except ConfigError as error:
        return [Finding("settings", "fail", str(error), "correct the variable it names")], Exit.USAGE
    findings = [_settings(settings), _state(settings.state_dir)]
    async with consul:
        try:
            async for finding in _consul(consul, settings.identity):
                findings.append(finding)  # noqa: PERF401 - what was found before an error counts
        except RegistryError as error:
            away = isinstance(error, Unreachable)
            findings.append(Finding("consul", "fail", str(error), _REMEDY_AWAY if away else _REMEDY_OTHER))
            return findings, Exit.NO_CONSUL if away else Exit.PROBLEM
    return findings, Exit.PROBLEM if any(finding.state == "fail" for finding in findings) else Exit.OK


_REMEDY_AWAY = "CONSUL_HTTP_ADDR names another; `meshsdk dev` starts one on this machine"
_REMEDY_OTHER = "see what answers there; CONSUL_HTTP_ADDR names another"
_REMEDY_TOKEN = "give the token the rules in registry/README.md (CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE)"


def _settings(settings: Settings) -> Finding:
    token = (
        f"the token in {settings.consul_token_file}"
        if settings.consul_token_file
        else "a token"
        if settings.consul_token
        else "no token"
    )
    where = f", datacenter {settings.datacenter}" if settings.datacenter else ""
    return Finding("settings", "ok", f"Consul at {settings.consul_url} with {token}{where}")


def _state(folder: Path | None) -> Finding:
    problem = problem_with(folder) if folder is not None else "no folder"
    if problem:
        seen = f"{problem}: a start without Consul knows nothing"
        return Finding("last known good on disk", "warn", seen, "set MESH_STATE_DIR to a folder only you can write")
    return Finding("last known good on disk", "ok", str(folder))


async def _consul(consul: Consul, identity: str) -> AsyncIterator[Finding]:
    """One question after the other. A permission that lacks leaves the others to ask; no answer ends it all."""
    steps: tuple[tuple[str, Callable[[Consul], Awaitable[list[Finding]]]], ...] = (
        ("consul", _agent),
        ("leader", _leader),
        ("kv", _write),
        ("policy", _policy),
        ("services", _services),
        ("identity", partial(_identity, identity)),
    )
    for subject, step in steps:
        try:
            for finding in await step(consul):
                yield finding
        except Denied as error:
            yield Finding(subject, "fail", str(error), _REMEDY_TOKEN)
        except NoLeader as error:
            yield Finding(subject, "fail", str(error), "wait for the election; callers go on with what they know")


async def _agent(consul: Consul) -> list[Finding]:
    info = await consul.agent_info()
    return [Finding("consul", "ok", f"version {info.version}, datacenter {info.datacenter}, node {info.node}")]


async def _leader(consul: Consul) -> list[Finding]:
    leader = await consul.leader()
    if leader:
        return [Finding("leader", "ok", leader)]
    remedy = "wait for the election; callers go on with what they know"
    return [Finding("leader", "fail", "the servers have no leader", remedy)]


async def _write(consul: Consul) -> list[Finding]:
    """A process only reads: not being allowed to write matters to who applies policy."""
    await consul.keys(PREFIX)
    try:
        await consul.put(PROBE_KEY, b"")
        await consul.delete(PROBE_KEY)
    except Denied as error:
        seen = f"mesh/ can be read and not written: {error}"
        return [Finding("kv", "warn", seen, 'to apply policy from here give the token key_prefix "mesh/" write')]
    return [Finding("kv", "ok", "mesh/ can be read and written")]


async def _policy(consul: Consul) -> list[Finding]:
    found = await documents(consul)
    good = [found.label(name) for name in sorted(found.good) if name not in found.mistakes]
    findings = [
        Finding(
            f"policy {name}",
            "fail",
            f"{found.label(name)} is rejected, every process goes on with its last good one: {'; '.join(lines)}",
            f"correct and apply it; `meshsdk policy get {name}` prints it",
        )
        for name, lines in sorted(found.mistakes.items())
    ]
    strays = [
        Finding(f"policy {name}", "warn", "no service's name: nobody reads it", f"delete the key {PREFIX + name!r}")
        for name in found.strays
    ]
    said = f"{', '.join(good)} in force" if good else "no document in force: every service has the defaults"
    return [Finding("policy", "ok", said), *findings, *strays]


async def _identity(setting: str, consul: Consul) -> list[Finding]:
    if setting in {"files", "off"}:
        return [Finding("identity", "ok", f"{setting}, by MESH_IDENTITY; Consul's CA is not asked")]
    try:
        roots = (await consul.roots()).value
    except Rejected as error:
        if setting == "consul":
            remedy = "until then no process with MESH_IDENTITY=consul is registered"
            return [Finding("identity", "fail", str(error), remedy)]
        remedy = "until then calls are in clear text, and refused where tls.mode is strict"
        return [Finding("identity", "warn", str(error), remedy)]
    return [Finding("identity", "ok", f"Consul's CA signs for the trust domain {roots.trust_domain}")]


async def _services(consul: Consul) -> list[Finding]:
    names = set((await consul.services()).value) - {"consul"}
    findings = []
    try:
        found = await documents(consul)
    except Denied:  # told by `_policy`
        found = Documents()
    for service in await survey.services(consul, names, found):
        findings += _service(service)
    return findings or [Finding("services", "ok", "none registered yet")]


def _service(service: survey.Service) -> list[Finding]:
    subject, count = f"service {service.name}", len(service.instances)
    if service.problem:
        return [Finding(subject, "warn", service.problem, "register it under a name that callers can write")]
    obeys = sorted({version for versions in service.obeys.values() for version in versions})
    seen = f"{service.passing} of {count} instances get calls" + (f"; they obey {', '.join(obeys)}" if obeys else "")
    state = "ok" if service.passing else "warn"
    clear, refusals = service.unencrypted().values(), endpoints(service.instances)[1]
    remedy = "" if service.passing or clear else "callers get NoEndpoint, or try the critical ones in panic mode"
    return [
        Finding(subject, state, seen, remedy),
        *(
            Finding(subject, "fail", line, _REMEDY_CLEAR)
            if line in clear
            else Finding(subject, "warn", line, _REMEDY_REFUSED if line in refusals else _REMEDY_AILING)
            for line in service.problems()
        ),
    ]


_REMEDY_CLEAR = (
    "serve it with an identity, under gunicorn with `from meshsdk.server.gunicorn import *` in its configuration; "
    "or set tls.mode to permissive until it is"
)
_REMEDY_REFUSED = "register it as it says"
_REMEDY_AILING = "its own check or an operator says so; `meshsdk endpoints` has all"
