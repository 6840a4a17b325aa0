"""The dev agent's KV store, pure: keys, tombstones, compare-and-set, transactions.

Index rules, as observed on Consul 1.8.7: an existing key has its ModifyIndex; a prefix the highest among its keys and
the deleted ones; what does not exist has the index of the store's last change, and at least 1. Writing the value a
key already has changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshsdk_registry.agent.journal import Journal

__all__ = ["Entry", "Keys", "Step"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value."""

    key: str
    value: bytes
    flags: int
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a transaction."""

    verb: str
    key: str
    value: bytes = b""
    flags: int = 0
    index: int = 0


class Keys:
    """Keys with values, in the order of their names."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._entries: dict[str, Entry] = {}
        self._tombstones: dict[str, int] = {}
        self._table = 0

    def get(self, key: str) -> tuple[int, Entry | None]:
        """A key and its index."""
        entry = self._entries.get(key)
        return (entry.modified if entry else self._last), entry

    def under(self, prefix: str) -> tuple[int, list[Entry]]:
        """All keys under a prefix and their index."""
        found = [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)]
        buried = [index for key, index in self._tombstones.items() if key.startswith(prefix)]
        index = max([entry.modified for entry in found] + buried, default=0)
        return (index or self._last), found

    def put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> bool:
        """Write a key; False when `cas` is not its ModifyIndex (0: it must not exist)."""
        old = self._entries.get(key)
        if cas is not None and cas != (old.modified if old else 0):
            return False
        if old is None or (old.value, old.flags) != (value, flags):
            index = self._advance()
            self._entries[key] = Entry(key, value, flags, old.created if old else index, index)
        return True

    def delete(self, key: str, *, cas: int | None = None) -> bool:
        """Delete a key; False when `cas` is not its ModifyIndex. One that is not there is True either way."""
        old = self._entries.get(key)
        if old is None:
            return True
        if cas is not None and cas != old.modified:
            return False
        self._bury([key])
        return True

    def delete_under(self, prefix: str) -> None:
        """Delete all keys under a prefix."""
        if doomed := [key for key in self._entries if key.startswith(prefix)]:
            self._bury(doomed)

    def apply(self, steps: list[Step]) -> tuple[list[tuple[Entry, bool]], list[tuple[int, str]]]:
        """Do all steps or none; return (entry, was it read), or (step, why) of each that failed."""
        before = dict(self._entries), dict(self._tombstones), self._table
        entries: list[tuple[Entry, bool]] = []
        failed: list[tuple[int, str]] = []
        for n, step in enumerate(steps):
            try:
                read = step.verb in {"get", "get-tree"}
                entries += [(entry, read) for entry in _VERBS[step.verb](self, step)]
            except LookupError as error:
                failed.append((n, str(error.args[0]) if step.verb in _VERBS else f'unknown KV verb "{step.verb}"'))
        if failed:
            self._entries, self._tombstones, self._table = before
        return ([] if failed else entries), failed

    @property
    def _last(self) -> int:
        return max(1, self._table)

    def _advance(self) -> int:
        self._table = self._journal.advance()
        return self._table

    def _bury(self, keys: list[str]) -> None:
        index = self._advance()
        for key in keys:
            del self._entries[key]
            self._tombstones[key] = index


def _existing(keys: Keys, step: Step) -> Entry:
    entry = keys.get(step.key)[1]
    if entry is None:
        raise LookupError(f'key "{step.key}" doesn\'t exist')
    return entry


def _set(keys: Keys, step: Step) -> list[Entry]:
    cas = step.index if step.verb == "cas" else None
    if not keys.put(step.key, step.value, flags=step.flags, cas=cas):
        raise LookupError(f'failed to set key "{step.key}", index is stale')
    return [_existing(keys, step)]


def _delete(keys: Keys, step: Step) -> list[Entry]:
    if not keys.delete(step.key, cas=step.index if step.verb == "delete-cas" else None):
        raise LookupError(f'failed to delete key "{step.key}", index is stale')
    return []


def _delete_tree(keys: Keys, step: Step) -> list[Entry]:
    keys.delete_under(step.key)
    return []


def _get(keys: Keys, step: Step) -> list[Entry]:
    return [_existing(keys, step)]


def _get_tree(keys: Keys, step: Step) -> list[Entry]:
    return keys.under(step.key)[1]


def _check_index(keys: Keys, step: Step) -> list[Entry]:
    entry = _existing(keys, step)
    if entry.modified != step.index:
        raise LookupError(f'current modify index {entry.modified} does not match {step.index} for key "{step.key}"')
    return [entry]


def _check_absent(keys: Keys, step: Step) -> list[Entry]:
    if keys.get(step.key)[1]:
        raise LookupError(f'key "{step.key}" exists')
    return []


_VERBS: Mapping[str, Callable[[Keys, Step], list[Entry]]] = {
    "set": _set,
    "cas": _set,
    "get": _get,
    "get-tree": _get_tree,
    "check-index": _check_index,
    "check-not-exists": _check_absent,
    "delete": _delete,
    "delete-cas": _delete,
    "delete-tree": _delete_tree,
}
