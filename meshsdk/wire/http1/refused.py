"""Why the bytes of a client are no request that may be forwarded."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):
    """A request, or what should have been one, that goes nowhere: it is answered and the connection closes.

    Attributes:
        status: to answer with: 400, 413, 414, 417, 431, 501 or 505.
        kind: one word for counting: `syntax`, `framing`, `host`, `target`, `method`, `version`, `size`, `expect` or
            `connection`.
    """

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind
