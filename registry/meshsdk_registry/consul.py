"""An async client of Consul's HTTP API: typed answers, one error tree, blocking queries.

py-consul's API classes build the requests that write and those to the agent. Blocking reads and heartbeats are sent
raw: py-consul knows no `stale` for health, takes broken base64 for a value, and puts a check's output into the URL.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from meshsdk_registry import decode
from meshsdk_registry.connect import Connect
from meshsdk_registry.errors import Missing, TooLarge
from meshsdk_registry.model import (
    AgentInfo,
    Answer,
    Check,
    Instance,
    KeyValue,
    LocalService,
    Operation,
    Registration,
)
from meshsdk_registry.names import MAX_VALUE, check_key, check_prefix, check_registration, check_service
from meshsdk_registry.pyconsul import CB
from meshsdk_registry.session import duration, read

__all__ = ["Consul"]

MAX_OPERATIONS = 64
"""Of one transaction, in Consul's code (`maxTxnOps`)."""

MAX_OUTPUT = 4096
"""Bytes of a check's output that the agent keeps (`check_output_max_size`)."""


class Consul(Connect):
    """A client of one Consul agent. Use it in one event loop; `async with` or `aclose` ends it.

    Args:
        url: "http://127.0.0.1:8500", "https://…" or "unix:///path"; ValueError says what to write instead.
        token: the ACL token, or a callable that gives the one of the moment.
        token_file: a file with the token, read again when it changes.
        datacenter: asked instead of the agent's own, for reads of catalog, health and KV.
        tls: for https; None trusts the system's authorities.
        stale: let any server answer health and catalog reads, leader or not: they go on while there is none.
        timeout: seconds for connecting and for an answer; a blocking query's wait is added.
    """

    # --- the agent ----------------------------------------------------------------------------------

    async def leader(self) -> str | None:
        """Return the address of the servers' leader, or None while there is none."""
        return read(await self._api.status.leader(), _text).value or None

    async def agent_info(self) -> AgentInfo:
        """Return who answers: node, datacenter, version, and its default for intentions. It takes `agent:read`."""
        return read(await self._api.agent.self(), decode.agent_info).value

    async def local_services(self) -> Mapping[str, LocalService]:
        """Return what is registered with this agent, by service id."""
        return read(await self._api.agent.services(), decode.local_services).value

    async def local_checks(self) -> Mapping[str, Check]:
        """Return this agent's checks by id; maintenance is one, with its reason as notes."""
        return read(await self._api.agent.checks(), decode.local_checks).value

    async def register(self, registration: Registration) -> None:
        """Register an instance with a TTL check. It stays as healthy as its check was: `pass_ttl` must follow.

        Raises:
            ValueError: a name, id, address, port, weight or TTL that Consul or its callers could not use.
        """
        new = check_registration(registration)
        check = {
            "CheckID": new.check_id,
            "Name": f"heartbeat of {new.id}",
            "TTL": duration(new.ttl),
            "DeregisterCriticalServiceAfter": duration(new.deregister_after),
        }
        await self._api.agent.service.register(
            new.service,
            service_id=new.id,
            address=new.address,
            port=new.port,
            tags=list(new.tags),
            meta=dict(new.meta),
            weights={"Passing": new.weight, "Warning": new.weight},
            check=check,
            connect={"Native": True} if new.native else None,
        )

    async def pass_ttl(self, check_id: str, output: str = "") -> None:
        """Say that the instance is well. Raise `Missing` when Consul has forgotten the check."""
        await self._update(check_id, "passing", output)

    async def warn_ttl(self, check_id: str, output: str = "") -> None:
        """Say that the instance is not quite well; it keeps getting calls. Raise `Missing` for an unknown check."""
        await self._update(check_id, "warning", output)

    async def fail_ttl(self, check_id: str, output: str = "") -> None:
        """Say that the instance is ill. Raise `Missing` for an unknown check."""
        await self._update(check_id, "critical", output)

    async def maintenance(self, service_id: str, enable: bool, reason: str = "") -> None:
        """Take an instance out of service, or back in. Consul keeps the first reason. Raise `Missing` if unknown."""
        await self._api.agent.service.maintenance(service_id, "true" if enable else "false", reason)

    async def deregister(self, service_id: str) -> None:
        """Take an instance out of the catalog, together with its checks; not an error if it is gone already."""
        try:
            await self._api.agent.service.deregister(service_id)
        except Missing:  # newer Consul says 404 where 1.8 says 200; either way it is what was asked for
            return

    # --- catalog and health -------------------------------------------------------------------------

    async def services(self, *, index: int = 0, wait: float = 0.0) -> Answer[Mapping[str, tuple[str, ...]]]:
        """Return the names of all services with their tags. See `instances` for `index` and `wait`."""
        reply = await self._get("/v1/catalog/services", index, wait, self.datacenter, *self._any_server)
        return read(reply, lambda pair: decode.services(pair[1]))

    async def instances(
        self, service: str, *, index: int = 0, wait: float = 0.0, datacenter: str | None = None
    ) -> Answer[tuple[Instance, ...]]:
        """Return all instances of a service, healthy or not; none for a service that Consul does not know.

        Args:
            index: of the last answer; Consul holds the query until something newer is there. 0 answers at once.
            wait: seconds Consul may hold it, at most 240.
        """
        path = f"/v1/health/service/{check_service(service)}"
        reply = await self._get(path, index, wait, datacenter or self.datacenter, *self._any_server)
        return read(reply, lambda pair: decode.instances(pair[1]))

    async def checks(self, service: str, *, index: int = 0, wait: float = 0.0) -> Answer[tuple[Check, ...]]:
        """Return the checks of a service's instances with their outputs. See `instances` for `index` and `wait`."""
        path = f"/v1/health/checks/{check_service(service)}"
        reply = await self._get(path, index, wait, self.datacenter, *self._any_server)
        return read(reply, lambda pair: decode.checks(pair[1]))

    # --- KV -----------------------------------------------------------------------------------------

    async def key(self, key: str, *, index: int = 0, wait: float = 0.0) -> Answer[KeyValue | None]:
        """Return one key as the leader knows it, or None. See `instances` for `index` and `wait`."""
        reply = await self._get(f"/v1/kv/{check_key(key)}", index, wait, self.datacenter)
        return read(reply, lambda pair: decode.key_values(pair[1])[0] if pair[1] else None)

    async def keys(self, prefix: str, *, index: int = 0, wait: float = 0.0) -> Answer[tuple[KeyValue, ...]]:
        """Return all keys under a prefix, none if it does not exist. See `instances` for `index` and `wait`."""
        path = f"/v1/kv/{check_prefix(prefix)}"
        reply = await self._get(path, index, wait, self.datacenter, ("recurse", ""), *self._any_server)
        return read(reply, lambda pair: decode.key_values(pair[1] or []))

    async def put(self, key: str, value: bytes, *, cas: int | None = None, flags: int = 0) -> bool:
        """Write a key; return False when `cas` is no longer its ModifyIndex (0: it must not exist yet).

        Raises:
            TooLarge: before sending, for more than 512 KiB.
        """
        if len(value) > MAX_VALUE:
            raise TooLarge(
                f"key {key!r} at {self.url}: {len(value)} bytes are over Consul's {MAX_VALUE}; split the value"
            )
        return read(await self._api.kv.put(check_key(key), value, cas=cas, flags=flags or None), _truth).value

    async def delete(self, key: str, *, cas: int | None = None) -> bool:
        """Delete a key; return False when `cas` is no longer its ModifyIndex. A key that is not there is True."""
        return read(await self._api.kv.delete(check_key(key), cas=cas), _truth).value

    async def txn(self, operations: Sequence[Operation]) -> tuple[KeyValue, ...]:
        """Apply up to 64 operations at once or not at all; return the keys as they are now, read or written.

        Raises:
            Conflict: one of them could not be applied; the message says which and why.
            TooLarge: before sending, for more than 512 KiB together.
        """
        if len(operations) > MAX_OPERATIONS:
            raise ValueError(
                f"{len(operations)} operations in one transaction: Consul takes {MAX_OPERATIONS}; split them"
            )
        payload = [{"KV": _operation(step)} for step in operations]
        size = len(json.dumps(payload))
        if size > MAX_VALUE:
            raise TooLarge(f"a transaction at {self.url}: {size} bytes are over Consul's {MAX_VALUE}; split it")
        return read(await self._api.txn.put(payload), _results).value

    async def _update(self, check_id: str, status: str, output: str) -> None:
        # Not py-consul's ttl_pass: it puts the output into the URL, where 4 KiB of it do not belong.
        body = json.dumps({"Status": status, "Output": _shortened(output)})
        path = f"/v1/agent/check/update/{check_id}"
        await self._transport.request("PUT", path, data=body, callback=CB.boolean())


def _shortened(output: str) -> str:
    return output.encode()[:MAX_OUTPUT].decode(errors="ignore")


def _operation(step: Operation) -> dict[str, Any]:
    check = check_prefix if step.verb in {"get-tree", "delete-tree"} else check_key
    fields: dict[str, Any] = {"Verb": step.verb, "Key": check(step.key)}
    if step.value is not None:
        fields["Value"] = base64.b64encode(step.value).decode()
    if step.verb in {"cas", "check-index", "delete-cas"}:
        fields["Index"] = step.index
    return fields


def _results(body: Any) -> tuple[KeyValue, ...]:
    return decode.key_values([entry["KV"] for entry in body["Results"] or []])


def _text(body: Any) -> str:
    if not isinstance(body, str):
        raise ValueError(f"expected a text, got {str(body)[:50]!r}")  # noqa: TRY004  # one kind of error
    return body


def _truth(body: Any) -> bool:
    if not isinstance(body, bool):
        raise ValueError(f"expected true or false, got {str(body)[:50]!r}")  # noqa: TRY004  # one kind of error
    return body
