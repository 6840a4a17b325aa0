"""The examination in a process of its own, so that the library for certificates takes no memory where proxies serve.

Rule 1  What is asked and answered is JSON, on a socketpair that nobody else has: a private key is on no command line
        and in no environment, and what parses other people's certificates cannot answer with anything but text.
Rule 2  The process has `SECONDS`. Whatever it does, it is gone when the answer is there. Without an answer, material is
        refused with words that say so, as any that cannot be used: what was in force stays, and it is tried again.
Rule 3  Where the library is loaded anyway, nothing is gained: the examination takes place here. It is loaded where
        certificates live so shortly that their renewal cannot wait for a process on a crowded machine.
Rule 4  No thread waits for it: the end of what it writes is its end, and nothing outlives SIGKILL.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from meshsdk.identity.material import BadMaterial, Material
from meshsdk.identity.spiffe import SpiffeId

if TYPE_CHECKING:
    import socket
    import subprocess

__all__ = ["examine_apart", "examine_leanly", "main"]

SECONDS = 10.0
"""Bound of one examination, which takes 0.2 s of CPU, nearly all of it for the start of Python."""

BRIEF = timedelta(minutes=5)
"""Lifetime of a certificate that is not kept waiting (rule 3); Consul's own live for an hour at least, as a rule three
days, those of a dev agent for as long as a test likes. With six processes for each core, an examination took 1.5 s."""

_LIBRARY = "cryptography.x509"

# -P: what lies in the current folder must not be imported in place of a library.
_COMMAND = (sys.executable, "-P", "-m", __name__)


async def examine_leanly(
    chain: str, key: str, roots: str, *, now: datetime, trust_domain: str = "", rooted: bool = True
) -> Material:
    """As `meshsdk.identity.examination.examined`, by another process where that spares this one the library (rule 3).

    Raises:
        BadMaterial: as `examine_apart`.
    """
    if _LIBRARY in sys.modules:
        from meshsdk.identity.examination import examined

        return examined(chain, key, roots, now=now, trust_domain=trust_domain, rooted=rooted)
    found = await examine_apart(chain, key, roots, now=now, trust_domain=trust_domain, rooted=rooted)
    if found.lifetime < BRIEF:
        importlib.import_module(_LIBRARY)
    return found


async def examine_apart(
    chain: str, key: str, roots: str, *, now: datetime, trust_domain: str = "", rooted: bool = True
) -> Material:
    """As `meshsdk.identity.examination.examined`, by another process; see the rules.

    Raises:
        BadMaterial: a rule of the examination is broken, or none took place.
    """
    asked = {"chain": chain, "key": key, "roots": roots, "trust_domain": trust_domain, "rooted": rooted}
    found = await _ask(json.dumps(asked | {"now": now.isoformat()}).encode())
    if "refused" in found:
        raise BadMaterial(found["refused"])
    for name in ("not_before", "not_after"):
        found[name] = datetime.fromisoformat(found[name])
    identity = found["spiffe_id"]
    found["spiffe_id"] = SpiffeId(identity["trust_domain"], identity["path"])
    return Material(**found)


async def _ask(question: bytes) -> dict[str, Any]:
    import asyncio  # not at the top, as the process that examines runs this module too
    import socket

    ours, theirs = socket.socketpair()
    with ours:
        process = _started(theirs)
        try:
            async with asyncio.timeout(SECONDS):
                answer = await _exchange(ours, question)
        except TimeoutError as error:
            raise BadMaterial(f"not examined: the process to do it gave no answer within {SECONDS:g} s") from error
        finally:
            process.kill()
            code = process.wait()
    try:
        found: dict[str, Any] = json.loads(answer)
        return found
    except ValueError as error:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        raise BadMaterial(f"not examined: the process to do it {how} and gave no answer") from error


def _started(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """The process; in a group of its own, as Ctrl-C in a terminal is for us alone."""
    import subprocess

    with theirs:
        try:
            return subprocess.Popen(_COMMAND, stdin=theirs.fileno(), stdout=theirs.fileno(), process_group=0)
        except OSError as error:
            raise BadMaterial(f"not examined: no process to do it can be started: {error}") from error


async def _exchange(ours: socket.socket, question: bytes) -> bytes:
    import asyncio

    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        writer.write(question)
        writer.write_eof()
        return await reader.read()
    except OSError:  # it has ended before it read everything
        return b""
    finally:
        writer.close()


def main() -> None:
    """Answer the one question on stdin, on stdout."""
    from meshsdk.identity.examination import examined

    asked = json.load(sys.stdin)
    try:
        found = asdict(examined(**(asked | {"now": datetime.fromisoformat(asked["now"])})))
    except BadMaterial as error:
        found = {"refused": str(error)}
    json.dump(found, sys.stdout, default=datetime.isoformat)


if __name__ == "__main__":
    main()
