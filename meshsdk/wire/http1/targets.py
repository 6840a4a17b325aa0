"""Where a request is for: its target in one of four forms (RFC 9112, 3.2), and the authority in it or in Host.

A path is passed on as it came. Refused is one that nginx refuses and others, as Node, make something of:
with half an escape or an escaped NUL, or that leads above the root once dots and escapes are resolved.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from meshsdk.wire.http1.refused import Refused

__all__ = ["check_authority", "known", "read_target"]

# RFC 3986, 3.2.2 lets sub-delimiters and percent-encoding into a name; no name in DNS or of a service has them, and
# servers disagree on what they mean. The underscore is common in the names of containers.
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_~-]+(?:\.[A-Za-z0-9_~-]+)*\.?)(?::([0-9]{1,5}))?")
_HALF: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)([/?].*)?", re.IGNORECASE)

# Authorities found valid before, and whether they have a port: a process sees the same few over and over.
known: dict[bytes, bool] = {}
_REMEMBERED: Final = 500
_LONGEST: Final = 255 + 6  # a name in DNS and a port


def check_authority(authority: bytes, where: str) -> bool:
    """Whether a port is in it.

    Raises:
        Refused: it is no `host` or `host:port`.
    """
    if authority in known:
        return known[authority]
    if b"@" in authority:
        raise Refused(400, "host", f"{where} has a user name or password in it ({_shown(authority)}); leave it out")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or len(authority) > _LONGEST or int(match[2] or b"1") not in range(1, 65536):
        raise Refused(400, "host", f"{where} is {_shown(authority)}, which is no `host` or `host:port`")
    with_port = match[2] is not None
    if len(known) >= _REMEMBERED:  # they come from outside
        known.clear()
    known[authority] = with_port
    return with_port


def read_target(method: bytes, target: bytes) -> bytes | None:
    """The authority in a target; None where there is none.

    Raises:
        Refused: the target has none of the four forms, or not the one that goes with `method`, or no path to pass on.
    """
    if method == b"CONNECT":
        if not check_authority(target, "the target of CONNECT"):
            raise Refused(400, "target", f"CONNECT {_shown(target)} has no port; write `host:port`")
        return target
    if target == b"*":
        if method != b"OPTIONS":
            raise Refused(400, "target", f"the target `*` goes with OPTIONS only, not with {method.decode()}")
        return None
    if target.startswith(b"/"):
        _check_path(target)
        return None
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise Refused(400, "target", f"the target {_shown(target)} begins neither with `/` nor with `http://host`")
    check_authority(match[1], "the authority in the target")
    _check_path(match[2] or b"/")
    return match[1]


def _check_path(target: bytes) -> None:
    path = target.split(b"?", 1)[0]
    half = _HALF.search(path)
    if half is not None:
        shown = _shown(path[half.start() : half.start() + 3])
        raise Refused(400, "target", f"the path has {shown}, which is no escape; write a percent sign as %25")
    path = unquote_to_bytes(path)
    if b"\0" in path:
        raise Refused(400, "target", "the path has an escaped NUL, %00")
    depth = 0
    for part in path.split(b"/"):
        depth += -1 if part == b".." else part not in (b"", b".")
        if depth < 0:
            raise Refused(400, "target", f"the path {_shown(target)} leads above the root")


def _shown(value: bytes) -> str:
    return f"`{value[:80].decode('ascii', 'backslashreplace')}`"
