"""Reads the gateway's file and checks it whole, its certificates included: they are read here for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from meshsdk.policy.reading import Mistake, Path, path_text
from meshsdk_sidecar.config import Admin
from meshsdk_sidecar.file import Found, clashes, load_as
from meshsdk_sidecar.gateway.certificate_files import BadCertificate, read_certificate
from meshsdk_sidecar.gateway.certificates import wildcard_of
from meshsdk_sidecar.gateway.config import CertificateSection, GatewayConfig, Listeners, RouteSection
from meshsdk_sidecar.place import Place

__all__ = ["load"]

_Routes = list[tuple[Path, RouteSection]]


def load(file: FilePath) -> GatewayConfig:
    """Read the file.

    Raises:
        ConfigError: it cannot be read, is not YAML or JSON, or has mistakes; all of them are listed.
    """
    return load_as(GatewayConfig, file, _further)


def _further(found: Found) -> Iterator[Mistake]:
    yield from clashes(_places(found))
    for key, example in (("certificates", "{cert: FILE, key: FILE}"), ("routes", "{host: NAME, to: SERVICE}")):
        if found.get(key, ()) == ():
            yield (key,), f"missing; write at least one: `{key}: [{example}]`"
    routes: _Routes = [(("routes", at), route) for at, route in enumerate(found.get("routes", ())) if route is not None]
    yield from _doubles(routes)
    certificates = found.get("certificates", ())
    covered: set[str] | None = set()
    for at, section in enumerate(certificates):
        try:
            covered = covered if section is None else _and(covered, section)
        except BadCertificate as error:
            yield ("certificates", at, error.key), str(error)
            covered = None
        covered = None if section is None else covered
    if covered and certificates:
        yield from _uncovered(routes, covered)


def _and(covered: set[str] | None, section: CertificateSection) -> set[str] | None:
    """What else is covered; read in any case, as each certificate may have mistakes of its own."""
    hosts = read_certificate(section).hosts
    return None if covered is None else covered | set(hosts)


def _places(found: Found) -> Iterator[tuple[Path, Place]]:
    listeners: Listeners = found.get("listeners", Listeners())
    for name, listener in (("https", listeners.https), ("http", listeners.http)):
        for place in () if listener is None else listener.places:
            yield ("listeners", name), place
    yield ("admin",), found.get("admin", Admin()).place
    if probes := found.get("probes"):
        yield ("probes",), probes.place


def _doubles(routes: _Routes) -> Iterator[Mistake]:
    known: dict[tuple[str, str, bool], Path] = {}
    for path, route in routes:
        what = route.host, route.path.stem, route.path.exact is not None
        first = known.setdefault(what, path)
        if first is not path:
            yield path, f"{path_text(first)} is for the same host and path; keep one of them"


def _uncovered(routes: _Routes, covered: set[str]) -> Iterator[Mistake]:
    """No client could reach such a host: no certificate would be shown for it."""
    for path, route in routes:
        if route.host != "*" and not {route.host, wildcard_of(route.host)} & covered:
            yield (*path, "host"), f"no certificate is for {route.host}; they are for {', '.join(sorted(covered))}"
