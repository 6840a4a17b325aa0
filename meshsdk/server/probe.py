"""Asks our own port for our own page: a worker cannot know otherwise that its server has begun to accept.

A WSGI application is never told that its server listens, and a preloading master imports the application without ever
serving it. So each process asks its port until its own middleware has been asked something.
"""

from __future__ import annotations

import asyncio
import errno

__all__ = ["Finding", "ask", "listens"]

# A request to the same machine; a worker that is busy for longer is asked again.
_WAIT = 1.0
_LIMIT = 4096


class Finding(str):
    """One line for a person: what was found at the port."""

    __slots__ = ()


async def ask(addresses: tuple[str, ...], port: int, path: str) -> Finding:
    """GET `path` at the first of `addresses` that accepts a connection; never raises for what is found there."""
    refused: list[str] = []
    for address in addresses:
        try:
            async with asyncio.timeout(_WAIT):
                return Finding(f"{_named(address, port)} answers {await _get(address, port, path)}")
        except TimeoutError:
            return Finding(f"{_named(address, port)} accepts connections and does not answer within {_WAIT:g} s")
        except OSError as error:
            refused.append(f"{_named(address, port)}: {_reason(error)}")
    return Finding("; ".join(refused))


async def listens(addresses: tuple[str, ...], port: int) -> bool:
    """Whether a connection to the port is accepted at one of the addresses."""
    for address in addresses:
        try:
            async with asyncio.timeout(_WAIT):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError):
            continue
        writer.close()
        return True
    return False


async def _get(address: str, port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection(address, port, limit=_LIMIT)
    try:
        host = _named(address, port)
        writer.write(
            f"GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: meshsdk-probe\r\nconnection: close\r\n\r\n".encode()
        )
        line = (await reader.read(_LIMIT)).partition(b"\r\n")[0]
    finally:
        writer.close()
    text = line.decode("latin-1", "replace")
    return repr(text[:60]) if text else "nothing (does it speak TLS?)"


def _named(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _reason(error: OSError) -> str:
    return "nothing listens" if error.errno == errno.ECONNREFUSED else (error.strerror or str(error))
