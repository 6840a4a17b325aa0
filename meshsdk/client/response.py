"""Replies that httpx reads in one step when all of the body is here already, which is nearly always.

httpx reads a body through four generators, whatever its size; on asyncio each is registered with the loop besides. For
a body that came with its head that is a tenth of the whole call. What is read, and every attribute afterwards, is the
same; a body that is encoded, still on its way, or read by iterating goes httpx's way.
"""

from __future__ import annotations

from datetime import timedelta
from operator import itemgetter
from time import perf_counter
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

if TYPE_CHECKING:
    from typing import Self

    from meshsdk.wire.engine import AsyncReply, Reply

__all__ = ["AsyncResponse", "AwaitingResponse", "BlockingResponse", "Response", "blank", "field_name"]


# Of an item of `Headers._list`, in small letters. Asked for a field, httpx decodes all of them before it looks.
field_name = itemgetter(1)
_HERE = frozenset({"reply", "started"})  # what a reply knows of this process
_ENCODED = frozenset({b"content-encoding"})


def blank(module: ModuleType) -> dict[str, Any]:
    """What every reply of this library has in the beginning."""
    return {**vars(module.Response(200, stream=module.ByteStream(b"")))}


class _Whole:
    """What both colours have in common. The attributes with an underscore are httpx's own, and httpx2's."""

    # The class to be pickled as: our own knows of a connection, which does not travel.
    _plain: ClassVar[type[httpx.Response]] = httpx.Response
    _blank: ClassVar[dict[str, Any]] = blank(httpx)
    _headers: ClassVar[type[httpx.Headers]] = httpx.Headers
    _bytes: ClassVar[type[httpx.ByteStream]] = httpx.ByteStream

    reply: Reply | AsyncReply
    started: float | None = None  # by whom no clock is bound to the stream; seconds, as `perf_counter` has them
    status_code: int
    headers: httpx.Headers
    is_closed: bool
    is_stream_consumed: bool
    stream: Any
    _content: bytes
    _elapsed: timedelta
    _num_bytes_downloaded: int

    @classmethod
    def of(cls, reply: Reply | AsyncReply, body: Any) -> Self:
        """Make one of what came. httpx would ask of each name and value whether it is bytes, and copy all of it."""
        headers = object.__new__(cls._headers)
        headers._list = [(name, name.lower(), value) for name, value in reply.headers]
        headers._encoding = None
        made = object.__new__(cls)
        made.__dict__.update(
            cls._blank,
            status_code=reply.status,
            headers=headers,
            stream=body,
            extensions=reply.extensions,
            history=[],
            reply=reply,
        )
        return made

    @property
    def has_redirect_location(self) -> bool:
        """Whether it sends its caller elsewhere; httpx looks five names up to tell."""
        return 300 <= self.status_code < 400 and super().has_redirect_location  # type: ignore[misc]

    def _stop(self) -> None:
        """The call is over: see how long it took."""
        if self.started is not None:
            self._elapsed = timedelta(seconds=perf_counter() - self.started)

    def _settle(self) -> None:
        """Keep the content, and nothing of the call: httpx's stream knows the reply as the reply knows the stream, and
        all that a call had made would wait for the collector of such circles."""
        if "_elapsed" not in self.__dict__ and (elapsed := getattr(self.stream, "elapsed", None)) is not None:
            self._elapsed = elapsed  # httpx2 asks the stream
        self.stream = self._bytes(self._content)
        self.__dict__.pop("reply", None)

    def _take_whole(self) -> bool:
        """Have the content if all of it is here, as it is."""
        if self.is_stream_consumed or self.is_closed or not _ENCODED.isdisjoint(map(field_name, self.headers._list)):  # noqa: SLF001
            return False
        whole = self.reply.whole()
        if whole is None:
            return False
        self._content = whole
        self._num_bytes_downloaded = len(whole)
        self.is_stream_consumed = self.is_closed = True  # and so is the stream, by whoever asked
        self._stop()
        return True

    def __reduce__(self) -> Any:
        state = self.__getstate__()
        assert isinstance(state, dict)
        return _unread, (self._plain,), {name: value for name, value in state.items() if name not in _HERE}

    def __reduce_ex__(self, protocol: Any, /) -> Any:
        return self.__reduce__()


def _unread(plain: type[httpx.Response]) -> httpx.Response:
    return plain.__new__(plain)


class BlockingResponse(_Whole):
    """Read by blocking."""

    def read(self) -> bytes:
        """Read and return the content."""
        if not hasattr(self, "_content"):
            if self._take_whole():
                self.stream.close()
            else:
                super().read()  # type: ignore[misc]
            self._settle()
        return self._content

    def close(self) -> None:
        """Let go of the connection."""
        if not self.is_closed:
            self._stop()
        super().close()  # type: ignore[misc]


class Response(BlockingResponse, httpx.Response):
    """A reply as httpx's users know it."""


class AwaitingResponse(_Whole):
    """Read by awaiting."""

    async def aread(self) -> bytes:
        """Read and return the content."""
        if not hasattr(self, "_content"):
            if self._take_whole():
                await self.stream.aclose()
            else:
                await super().aread()  # type: ignore[misc]
            self._settle()
        return self._content

    async def aclose(self) -> None:
        """Let go of the connection."""
        if not self.is_closed:
            self._stop()
        await super().aclose()  # type: ignore[misc]


class AsyncResponse(AwaitingResponse, httpx.Response):
    """A reply as users of httpx on asyncio know it."""
