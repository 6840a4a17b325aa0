"""Replies that httpx reads in one step when all of the body is here already, which is nearly always.

httpx reads a body through four generators, whatever its size; on asyncio each is registered with the loop besides. For
a body that came with its head that is a tenth of the whole call. What is read, and every attribute afterwards, is the
same; a body that is encoded, still on its way, or read by iterating goes httpx's way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import httpx

if TYPE_CHECKING:
    from meshsdk.wire.engine import AsyncReply, Reply

__all__ = ["AsyncResponse", "AwaitingResponse", "BlockingResponse", "Response"]


class _Whole:
    """What both colours have in common. The attributes with an underscore are httpx's own, and httpx2's."""

    # The class to be pickled as: our own knows of a connection, which does not travel.
    _plain: ClassVar[type[httpx.Response]] = httpx.Response

    reply: Reply | AsyncReply
    headers: httpx.Headers
    is_closed: bool
    is_stream_consumed: bool
    _content: bytes
    _num_bytes_downloaded: int

    def _take_whole(self) -> bool:
        """Have the content if all of it is here, as it is."""
        if self.is_stream_consumed or self.is_closed or "content-encoding" in self.headers:
            return False
        whole = self.reply.whole()
        if whole is None:
            return False
        self._content = whole
        self._num_bytes_downloaded = len(whole)
        self.is_stream_consumed = True
        return True

    def __reduce__(self) -> Any:
        state = self.__getstate__()
        assert isinstance(state, dict)
        return _unread, (self._plain,), {name: value for name, value in state.items() if name != "reply"}

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return self.__reduce__()


def _unread(plain: type[httpx.Response]) -> httpx.Response:
    return plain.__new__(plain)


class BlockingResponse(_Whole):
    """Read by blocking."""

    def read(self) -> bytes:
        """Read and return the content."""
        if hasattr(self, "_content") or not self._take_whole():
            return super().read()  # type: ignore[misc, no-any-return]
        self.close()  # type: ignore[attr-defined]
        return self._content


class Response(BlockingResponse, httpx.Response):
    """A reply as httpx's users know it."""


class AwaitingResponse(_Whole):
    """Read by awaiting."""

    async def aread(self) -> bytes:
        """Read and return the content."""
        if hasattr(self, "_content") or not self._take_whole():
            return await super().aread()  # type: ignore[misc, no-any-return]
        await self.aclose()  # type: ignore[attr-defined]
        return self._content


class AsyncResponse(AwaitingResponse, httpx.Response):
    """A reply as users of httpx on asyncio know it."""
