"""What the workers of one gateway know of its clients together: how much each has asked, and how often it is connected.

Rule 1  It is memory that all of them share. A client has a row of numbers in it; the rows that its name may have lie
        together, eight of them, and whoever reads or writes there has locked those eight. The lock is the system's
        (fcntl(2)), which takes it back from a process that ends: 5 µs a request, and no process asks another.
Rule 2  Where all eight are other clients', the row with the least in it is given away: a bucket that has been full for
        longest, a client with the fewest connections. So memory is bounded, and who is forgotten begins anew.
Rule 3  Of connections each worker writes a number of its own, its count, at every change. So one that is forgotten, or
        whose worker has crashed, is right again with the next change, and no count is ever wrong for good.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

from meshsdk.core.token_bucket import Bucket

__all__ = ["Ledger", "memory"]

T = TypeVar("T")

_NUMBER = 8  # bytes
_WAYS = 8
_SEED = 16  # bytes at the beginning, so that nobody outside can choose names that share rows

# 131,072 clients that are remembered with their rates, in 2 MiB; and 32,768 that are connected at once. What nobody has
# written to takes no memory.
_RATE_SETS = 16384
_CONNECTION_SETS = 4096


def memory(workers: int) -> int:
    """Make memory for a number of workers; returns its descriptor."""
    create = getattr(os, "memfd_create", None)
    if create is not None:
        descriptor: int = create("meshsdk-clients", os.MFD_CLOEXEC)
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:  # it has no name, and is gone with the last descriptor
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _size(workers))
    os.pwrite(descriptor, os.urandom(_SEED), 0)
    return descriptor


class Ledger:
    """A worker's access to it.

    Args:
        descriptor: of `memory`.
        workers: for how many that was made.
        number: which of them this is; what one before has written as this one is taken off.
    """

    def __init__(self, descriptor: int, workers: int, number: int) -> None:
        numbers = memoryview(mmap.mmap(descriptor, _size(workers))).cast("q")
        begin = _SEED // _NUMBER
        self._seed = numbers[:begin].tobytes()
        self._rates = _Rows(descriptor, numbers, begin, _RATE_SETS, 1)
        self._connections = _Rows(descriptor, numbers, begin + self._rates.length, _CONNECTION_SETS, workers)
        self._number = number
        self._connections.clear(number)

    def take(self, bucket: Bucket, key: str, now: float) -> float:
        """Take a token of a client's bucket; as `TokenBuckets.take`."""

        def taken(row: memoryview) -> float:
            row[0], wait = bucket.take(row[0], now)
            return wait

        return self._rates.change(self._name(key), taken)

    def count(self, key: str, mine: int) -> int:
        """How many connections a client has, now that `mine` of them are this worker's."""

        def counted(row: memoryview) -> int:
            row[self._number] = mine
            return sum(row)

        return self._connections.change(self._name(key), counted)

    def _name(self, key: str) -> int:
        """What a client is called in its row: never 0, which is nobody."""
        return int.from_bytes(blake2b(key.encode(), digest_size=_NUMBER, key=self._seed).digest(), signed=True) or 1


class _Rows:
    """A table: each row is a name and numbers.

    Args:
        descriptor: what is locked.
        numbers: all of the memory.
        begin: where the table begins, in numbers.
        sets: how many times eight rows.
        columns: numbers of a row.
    """

    def __init__(self, descriptor: int, numbers: memoryview, begin: int, sets: int, columns: int) -> None:
        self.length = _length(sets, columns)
        self._descriptor = descriptor
        self._numbers = numbers
        self._begin = begin
        self._sets = sets
        self._width = 1 + columns

    def change(self, name: int, change: Callable[[memoryview], T]) -> T:
        """Change a client's numbers, as nobody else does at the same time."""
        at = self._begin + name % self._sets * _WAYS * self._width
        size = _WAYS * self._width * _NUMBER
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, size, at * _NUMBER)
        try:
            return change(self._row(name, at))
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, size, at * _NUMBER)

    def clear(self, column: int) -> None:
        """Make a column zero; where nothing was written that is read as a file, which takes no memory."""
        size = _WAYS * self._width * _NUMBER
        for at in range(self._begin, self._begin + self.length, _WAYS * self._width):
            if os.pread(self._descriptor, size, at * _NUMBER).strip(b"\0"):
                self._numbers[at + 1 + column : at + _WAYS * self._width : self._width] = _ZEROS

    def _row(self, name: int, begin: int) -> memoryview:
        numbers, width, spare, least = self._numbers, self._width, 0, -1
        for at in range(begin, begin + _WAYS * width, width):
            if numbers[at] == name:
                return numbers[at + 1 : at + width]
            kept = sum(numbers[at + 1 : at + width])
            if least < 0 or kept < least:
                spare, least = at, kept
        row = numbers[spare + 1 : spare + width]
        for column in range(width - 1):
            row[column] = 0
        numbers[spare] = name
        return row


_ZEROS = memoryview(bytes(_WAYS * _NUMBER)).cast("q")


def _length(sets: int, columns: int) -> int:
    """How many numbers a table has."""
    return sets * _WAYS * (1 + columns)


def _size(workers: int) -> int:
    """Bytes of all."""
    return _SEED + _NUMBER * (_length(_RATE_SETS, 1) + _length(_CONNECTION_SETS, workers))
