"""What a request target may mean as a path, so that rules about paths hold whatever server reads it.

The mesh decides before the application sees the path, and hands it on unchanged; so what counts is not one normal form
but every form that a server could make of it. Those are its readings.

Rule 1: a deny rule matches when any reading does, an allow rule only when every reading does. Honest clients send
        paths of one reading and notice nothing.
Rule 2: what no server should get, or where readings cannot be listed, is unclear: deny rules about paths match it,
        allow rules about paths do not.
Rule 3: the query is cut off, the case is kept, an absolute-form target is its path.

| in the target | read as | because |
|---|---|---|
| `%61`, `%2D`, `%3A`, `%3b` | `a`, `-`, `:`, `;` | the same path by RFC 3986, 6.2.2.2, or to every server that decodes first, as all for Python do |
| `%7b`, `{`, `%c3%a9` | `%7B`, `%7B`, `%C3%A9` | one spelling for what a path may not hold as it is (RFC 3986, 6.2.2.1) |
| `/a/../b`, `/./`, `%2e%2e` | as it is, and `/b` | nginx and Tomcat resolve dots, Starlette and Flask do not (Envoy's CVE-2019-9901) |
| `//` | as it is, merged to `/`, and without `//host` | routers merge, URL parsers take `//x/` for a host (Istio's CVE-2021-31920) |
| `/a;x=1/b`, `/a/..;x/b` | as it is, and without `;…` | Java's servers strip parameters before they resolve dots (Envoy's CVE-2026-73551, -73511) |
| `%2f`, `\\`, `%5c` | as data, and as `/` | ASGI and WSGI servers decode before they route, others do not (Envoy's CVE-2021-29492) |
| `/admin.` | as it is, and `/admin` | file systems of Windows drop dots at the end of a name |
| `http://host/a` | `/a` | absolute-form, which servers must accept (RFC 9112, 3.2.2) |
| `/Admin` | `/Admin` | paths are case-sensitive (RFC 3986, 6.2.2.1); a server that ignores case needs a rule per spelling |
| `%00`–`%1f`, `%7f` | unclear | ends a name in C, or a line in a header |
| `%`, `%zz` | unclear | servers keep it, drop it or refuse it |
| `%2541`, `%252e` | unclear | escaped twice: two servers in a row see another path than one |
| `%c0%ae`, `%ff` | unclear | not UTF-8; old decoders take the first for a dot (CVE-2008-2938) |
| `#…`, spaces, letters beyond ASCII | unclear | RFC 9112 has none in a target; Envoy's CVE-2021-32779 |
| `*`, `host:443`, `ftp://…` | unclear | no path to compare |
| `http://host\\@/a` | unclear | `urlsplit`, and so gunicorn, ends a host at slashes only, URL parsers of browsers at a backslash too |
| more than 1,024 characters or 32 forms on the way | unclear | only where it is not one plain path; bounds what a request may cost |
"""  # noqa: E501 - a table's row is a line

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

__all__ = ["Paths", "check_path", "joined", "normal", "read", "spelled"]

# RFC 3986: pchar and slash, without escapes and parameters.
_PLAIN: Final = re.compile(r"[\w.~!$&'()*+,=:@/-]*+", re.ASCII)
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]+", re.IGNORECASE)
_TARGET: Final = re.compile(r"[!-~]*")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})|(%)|([\"\\<>^`{|}])")
_RAW: Final = re.compile(r"[\"\\<>^`{|}]")
_ODD: Final = re.compile(r"//|/\.|\.(?:/|$)|;|%2F|%5C")
_DOUBLED: Final = re.compile(r"%25[0-9A-Fa-f]{2}")
_CONTROL: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_BEYOND_ASCII: Final = re.compile(r"(?:%[89A-F][0-9A-F])+")
_PARAMETERS: Final = re.compile(r";[^/]*")
_SLASHES: Final = re.compile(r"/{2,}")
_DECODED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@")

_MOST_FORMS: Final = 32
_MOST_CHARACTERS: Final = 1024


@dataclass(slots=True)  # not frozen: one is made per request, and that costs 0.4 µs more
class Paths:
    """What a target may mean.

    Attributes:
        readings: each path that a server could make of it; the first is the closest to what was sent.
        unclear: what keeps it from being read, such as `an invalid escape`; empty where it can be.
    """

    readings: tuple[str, ...] = ()
    unclear: str = ""


def read(target: str) -> Paths:
    """Every reading of a request target as it was sent, escapes and query included."""
    path = target.partition("?")[0]
    if _is_plain(path):
        return Paths((path,))
    try:
        path = _from_absolute(path)
        return Paths(_readings(path, spelled(path)))
    except ValueError as reason:
        return Paths(unclear=str(reason))


def joined(sent: Paths, routed: Paths) -> Paths:
    """The readings of a path of which a prefix is taken off before it is routed: those with it, and those without."""
    unclear = sent.unclear or routed.unclear
    return Paths(unclear=unclear) if unclear else Paths(tuple(dict.fromkeys(sent.readings + routed.readings)))


def _is_plain(path: str) -> bool:
    """Whether it surely has one reading: no escape, no segment that is empty or begins or ends with a dot."""
    return (
        path[:1] == "/"
        and path[-1] != "."
        and "//" not in path
        and "/." not in path
        and "./" not in path
        and _PLAIN.fullmatch(path) is not None
    )


def normal(target: str) -> str | None:
    """The reading in which everything is resolved, None where the target is unclear."""
    readings = read(target).readings
    return _settled(readings[0]) if readings else None


def check_path(path: str) -> None:
    """Whether a rule may name this path: exact, or a prefix with everything below it, as `/admin/*`.

    Raises:
        ValueError: no request would match it, or it is not what it seems; says what to write.
    """
    stem = path[:-2] if path.endswith("/*") else path
    if path == "/*" or (stem != "/" and not stem.endswith("/") and "*" not in stem and read(stem).readings == (stem,)):
        return
    if path == "/":
        return
    if "*" in stem:
        raise ValueError("* stands only at the end, as in /admin/*; write the paths out")
    better = normal(quote(stem, safe="/%;:@!$&'()*+,=~")) if stem.startswith("/") else None
    if better is None:
        raise ValueError("not a path a rule can compare; write one such as /charge or /admin/*")
    better = better.rstrip("/") + path[len(stem) :] or "/"
    raise ValueError(f"paths are compared in their normal form; write {better}")


def _from_absolute(path: str) -> str:
    if path.startswith("/"):
        return path
    host = _ABSOLUTE.match(path)
    if not host:
        raise ValueError("no path")
    if "\\" in host[0]:
        raise ValueError("a backslash in the host")
    return path[host.end() :] or "/"


def spelled(path: str) -> str:
    """A path, or the beginning of one, with each escape in its one spelling.

    Raises:
        ValueError: it is unclear; says what makes it so.
    """
    if "#" in path:
        raise ValueError("a fragment")
    if not _TARGET.fullmatch(path):
        raise ValueError("a character that must be escaped")
    if _CONTROL.search(path):
        raise ValueError("an escaped control character")
    spelled = _respelled(path)
    if _DOUBLED.search(spelled):
        raise ValueError("a doubled escape")
    for run in _BEYOND_ASCII.findall(spelled):
        _check_utf8(run)
    return spelled


def _respelled(path: str) -> str:
    return _ESCAPE.sub(_respell, path) if "%" in path or _RAW.search(path) else path


def _respell(found: re.Match[str]) -> str:
    digits, stray, raw = found.groups()
    if stray:
        raise ValueError("an invalid escape")
    character = raw or chr(int(digits, 16))
    return character if character in _DECODED else f"%{ord(character):02X}"


def _check_utf8(run: str) -> None:
    try:
        bytes.fromhex(run.replace("%", "")).decode()
    except UnicodeDecodeError:
        raise ValueError("an escape that is not UTF-8") from None


def _without_host(path: str) -> str:
    """`//host/x` as a parser of URLs takes it; only what was sent is parsed, so this is no step."""
    return "/" + path[2:].partition("/")[2] if path.startswith("//") else path


def _readings(path: str, first: str) -> tuple[str, ...]:
    """Everything that any servers in a row, each taking any of the steps, could make of it.

    Escapes are decoded at any point too, because it matters when: a server that resolves `..` first and decodes
    `%2e%2e` afterwards sees another path than one that does it the other way round.
    """
    if not _ODD.search(first):
        return (first,)
    if len(path) > _MOST_CHARACTERS:
        raise ValueError("more characters than an unusual path may have")
    found = dict.fromkeys((path, _without_host(path)))
    waiting = list(found)
    while waiting:
        known = waiting.pop()
        for step in (_respelled, *_STEPS):
            further = step(known)
            if further not in found:
                found[further] = None
                waiting.append(further)
        if len(found) > _MOST_FORMS:
            raise ValueError("too many ways to be read")
    return tuple(dict.fromkeys(map(_respelled, found)))


def _settled(path: str) -> str:
    """After every step, until none changes anything; each shortens the path, so this ends."""
    while (further := _once(path)) != path:
        path = further
    return path


def _once(path: str) -> str:
    for step in _STEPS:
        path = step(path)
    return path


def _escaped_slashes(path: str) -> str:
    return path.replace("%2F", "/")


def _backslashes(path: str) -> str:
    return path.replace("%5C", "/")


def _without_parameters(path: str) -> str:
    return _PARAMETERS.sub("", path)


def _merged(path: str) -> str:
    return _SLASHES.sub("/", path) if "//" in path else path


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4: above the root is the root."""
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path[1:].split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if segments[-1] in {".", ".."} and kept else "")


def _without_last_dots(path: str) -> str:
    if "./" not in path and not path.endswith("."):
        return path
    return "/".join(segment.rstrip(".") or segment for segment in path.split("/"))


_STEPS: Final = (_escaped_slashes, _backslashes, _without_parameters, _merged, _without_dots, _without_last_dots)
