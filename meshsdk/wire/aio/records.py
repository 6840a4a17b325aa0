"""Of TLS what is outside OpenSSL: where a record ends in what came, and the memory that OpenSSL reads and writes."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from weakref import WeakKeyDictionary

__all__ = ["RECORD", "buffers", "end_of_record"]

# A record carries 16 KiB behind a head of 5 bytes, and its tag (RFC 8446, 5.1 and 5.2; 1.2 allows the largest of both).
# The head begins with its kind (RFC 8446, B.1).
RECORD: Final = 16 * 1024
_HEAD: Final = 5
_LARGEST: Final = _HEAD + RECORD + 2048
_LEAST_KIND: Final = 20
_LAST_KIND: Final = 24

_BUFFERS: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[ssl.MemoryBIO, ssl.MemoryBIO]] = WeakKeyDictionary()


def buffers() -> tuple[ssl.MemoryBIO, ssl.MemoryBIO]:
    """Where OpenSSL reads, and where it writes, in this loop."""
    loop = asyncio.get_running_loop()
    found = _BUFFERS.get(loop)
    if found is None:
        found = _BUFFERS[loop] = ssl.MemoryBIO(), ssl.MemoryBIO()
    return found


def end_of_record(data: bytes, begin: int) -> int:
    """Where the record ends that begins there; 0 where it is not whole.

    What cannot be a record ends with `data`: OpenSSL says what is wrong with it.
    """
    here = len(data)
    if begin == here:
        return 0
    if not _LEAST_KIND <= data[begin] <= _LAST_KIND:
        return here
    if here - begin < _HEAD:
        return 0
    end = begin + _HEAD + (data[begin + 3] << 8 | data[begin + 4])
    if end - begin > _LARGEST:
        return here
    return end if end <= here else 0
