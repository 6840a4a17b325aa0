"""Request bodies as a library's transport takes them; a streamed one remembers how it broke.

An exception out of such a body is the caller's and says nothing about the instance, even where it is one that
transports raise too: a body may itself be read from another reply.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

__all__ = ["AsyncBytes", "AsyncUpload", "AwaitingBytes", "AwaitingUpload", "BlockingUpload", "Upload"]


class _Noting:
    """What both colours have in common.

    Args:
        pieces: the body.

    Attributes:
        error: what came instead of one.
    """

    def __init__(self, pieces: Any) -> None:
        self._pieces = pieces
        self._left: Any = None
        self.error: Exception | None = None


class BlockingUpload(_Noting):
    """Sent by iterating."""

    def __iter__(self) -> Iterator[bytes]:
        self._left = iter(self._pieces)
        return self

    def __next__(self) -> bytes:
        try:
            piece: bytes = next(self._left)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        return piece


class Upload(BlockingUpload, httpx.SyncByteStream):
    """As a transport of httpx takes it."""


class AwaitingUpload(_Noting):
    """Sent by awaiting."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = aiter(self._pieces)
        return self

    async def __anext__(self) -> bytes:
        try:
            piece: bytes = await anext(self._left)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        return piece


class AsyncUpload(AwaitingUpload, httpx.AsyncByteStream):
    """As an awaiting transport of httpx takes it."""


class AwaitingBytes:
    """A body of bytes. The libraries' own is a generator, and trio complains of one that is left behind unfinished.

    Args:
        data: the body.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left: list[bytes] = []

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._left = [self._data]
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


class AsyncBytes(AwaitingBytes, httpx.AsyncByteStream):
    """As an awaiting transport of httpx takes it."""
