"""What both colours of our engine tell of a reply; `meshsdk.wire.engine` says what that must be."""

from __future__ import annotations

from typing import Any, Final

from meshsdk.wire.receiver import Receiver
from meshsdk.wire.retry_after import retry_after

__all__ = ["DISCARD_BYTES", "BaseReply"]

# What is left of a body nobody wants is read, to keep the connection, up to so many bytes.
DISCARD_BYTES: Final = 64 * 1024

_VERSIONS: Final = {"1.1": b"HTTP/1.1", "1.0": b"HTTP/1.0"}


class BaseReply(Receiver):
    """A reply that is told of as httpx tells of its own; the colours add how its body is read."""

    __slots__ = ("_info",)

    _info: Any  # of the connection, in the colour's own form

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait; looked for where the status is an error."""
        return retry_after(self.headers) if self.status >= 400 else None

    @property
    def extensions(self) -> dict[str, Any]:
        """`http_version`, `reason_phrase`, `network_stream`, and `trailers`, which is filled at the body's end."""
        found: dict[str, Any] = {
            "http_version": _VERSIONS[self.version],
            "reason_phrase": self.reason,
            "network_stream": self._info,
        }
        if self.status == 101:
            found["network_stream"] = self._upgraded()
        elif not self.complete or self.trailers:
            found["trailers"] = self.trailers
        return found

    def _upgraded(self) -> Any:
        """After 101: what reads and writes the connection, in place of what only tells of it."""
        raise NotImplementedError
