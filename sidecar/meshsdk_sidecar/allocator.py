"""What a process that serves asks of glibc's allocator.

What one read brings, up to 256 KiB, is freed when it is written, some thousand times a second. By itself glibc returns
free memory at the end of its heap to the system beyond 128 KiB, and maps pieces from there on one by one (mallopt(3)):
each read is then given pages that have to be cleared and faulted in anew. A reply of 64 KiB took 10 page faults; it
takes 0.6 to 0.9 of the CPU without them. What is kept instead is 2 MiB at the most (docs/decisions/0020).

The allocator reads this at a process's start, from its environment; others than glibc's do not look there.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["with_ours", "without_ours"]

_OURS = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(2 << 20)}


def with_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that serves; what somebody has set there stands."""
    return {**_OURS, **environment}


def without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that is not ours."""
    return {name: value for name, value in environment.items() if _OURS.get(name) != value}
