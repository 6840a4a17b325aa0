"""The policy documents of `mesh/policy/` as this caller obeys them. No I/O; the answers of KV come in, plans go out.

Rule 1: a bad document never replaces a good one and never blocks another: the last good one stays, the mistakes are
        kept for the status and logged once.
Rule 2: documents of services that are not called are not even parsed.
Rule 3: a document that is deleted is no longer in force, nor is an earlier one.
Rule 4: before KV answered, what the disk remembers is in force; without that, the defaults.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshsdk.core.plan import Plan
from meshsdk.discovery.memory import KeptDocument
from meshsdk.errors import PolicyError
from meshsdk.policy.document import Document, parse
from meshsdk.policy.effective import DEFAULTS, effective
from meshsdk_registry import KeyValue

__all__ = ["MESH_WIDE", "PREFIX", "Policies"]

PREFIX = "mesh/policy/"
MESH_WIDE = "_mesh"

_log = logging.getLogger("meshsdk.discovery")


@dataclass(slots=True)
class _Sheet:
    """One document: the last good one, and what is wrong with a newer one."""

    good: Document | None = None
    kept: KeptDocument | None = None
    problem: str = ""
    seen: KeyValue | None = None


class Policies:
    """The plans of one caller for the services it calls.

    Args:
        caller: the name that `from` sections go by.
    """

    def __init__(self, caller: str) -> None:
        self._caller = caller
        self._keys: Mapping[str, KeyValue] | None = None
        self._sheets: dict[str, _Sheet] = {MESH_WIDE: _Sheet()}
        self._plans: dict[str, Plan] = {}
        self._misfits: dict[str, str] = {}

    def use(self, service: str, remembered: Mapping[str, KeptDocument]) -> None:
        """Begin to follow a service's document; `remembered` stands in for what KV has not said."""
        for name in (MESH_WIDE, service):
            sheet = self._sheets.setdefault(name, _Sheet())
            if sheet.good is None and sheet.seen is None and name in remembered:
                self._recall(name, sheet, remembered[name])
            if self._keys is not None:
                self._read(name, sheet)
        self._merge(service)

    def received(self, keys: Iterable[KeyValue]) -> list[str]:
        """Take KV's answer for all keys under `PREFIX` and return the services whose plan is another now."""
        self._keys = {entry.key.removeprefix(PREFIX): entry for entry in keys}
        for name, sheet in self._sheets.items():
            self._read(name, sheet)
        return [service for service in list(self._plans) if self._merge(service)]

    def plan(self, service: str) -> Plan:
        """Return the plan in force; the defaults for a service not in use."""
        return self._plans.get(service, DEFAULTS)

    def problem(self, service: str) -> str:
        """Say what keeps a newer document of the service or of the mesh from being in force; empty if nothing does."""
        found = [self._sheets[name].problem for name in (service, MESH_WIDE) if name in self._sheets]
        return "\n".join(problem for problem in (*found, self._misfits.get(service, "")) if problem)

    def documents(self, service: str) -> dict[str, KeptDocument]:
        """Return the good documents behind the service's plan, to be remembered."""
        found = ((name, self._sheets.get(name)) for name in (service, MESH_WIDE))
        return {name: sheet.kept for name, sheet in found if sheet is not None and sheet.kept is not None}

    def _recall(self, name: str, sheet: _Sheet, kept: KeptDocument) -> None:
        try:
            sheet.good = parse(kept.text, PREFIX + name, f"{name}@{kept.index}")
            sheet.kept = kept
        except PolicyError as error:
            _log.warning("the policy remembered on disk is not used: %s", error)

    def _read(self, name: str, sheet: _Sheet) -> None:
        entry = (self._keys or {}).get(name)
        if entry is None:
            if sheet.good is not None or sheet.problem:
                _log.info("policy %s%s is gone", PREFIX, name)
            sheet.good, sheet.kept, sheet.problem, sheet.seen = None, None, "", None
        elif entry != sheet.seen:
            sheet.seen = entry
            self._judge(name, sheet, entry)

    def _judge(self, name: str, sheet: _Sheet, entry: KeyValue) -> None:
        label = f"{name}@{entry.modify_index}"
        value = entry.value or b""
        try:
            sheet.good = parse(value, entry.key, label)
        except PolicyError as error:
            problem = f"{label} is rejected, {_instead(sheet)}: {error}"
            if problem != sheet.problem:
                _log.warning("policy %s", problem)
            sheet.problem = problem
            return
        sheet.kept = KeptDocument(value.decode(), entry.modify_index)
        sheet.problem = ""
        _log.info("policy %s adopted", label)

    def _merge(self, service: str) -> bool:
        before = self._plans.get(service)
        own, mesh = self._sheets[service].good, self._sheets[MESH_WIDE].good
        misfit = ""
        try:
            plan = effective(self._caller, service, mesh, own)
        except PolicyError as error:
            misfit = f"{PREFIX}{service} and {PREFIX}{MESH_WIDE} do not fit together: {error}"
            plan = before or self._without_own(service, mesh)
            if misfit != self._misfits.get(service):
                _log.warning("policy %s; %s stays in force", misfit, plan.version)
        self._misfits[service] = misfit
        self._plans[service] = plan
        return plan != before

    def _without_own(self, service: str, mesh: Document | None) -> Plan:
        try:
            return effective(self._caller, service, mesh, None)
        except PolicyError:  # told already: the mesh's document was part of the merge that failed
            return DEFAULTS


def _instead(sheet: _Sheet) -> str:
    return f"{sheet.good.version_label} stays in force" if sheet.good else "nothing of it is in force"
