"""The client's part of Consul Connect: certificates of services, the CA that signs them, and who may call whom.

Sent raw throughout: py-consul's calls lose the index, some the token, ask `authorize` by the wrong method, and know
only the intentions API of Consul 1.9 and later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

from meshsdk_registry import connect_json
from meshsdk_registry.connect_model import Intention, Leaf, Permission, Roots
from meshsdk_registry.errors import Conflict, Missing, Rejected
from meshsdk_registry.model import Answer
from meshsdk_registry.names import check_service
from meshsdk_registry.pyconsul import CB
from meshsdk_registry.session import Session, read

__all__ = ["Connect"]

T = TypeVar("T")

_CONFIGURATION = "/v1/connect/ca/configuration"
_INTENTIONS = "/v1/connect/intentions"
_EXACT = f"{_INTENTIONS}/exact"


class Connect(Session):
    """The calls to `/v1/agent/connect` and `/v1/connect`. See `Consul`."""

    _by_name: bool | None = None
    """Whether this Consul has the intentions API of 1.9 and later; None until it was asked."""

    async def leaf(self, service: str, *, index: int = 0, wait: float = 0.0) -> Answer[Leaf]:
        """Return the service's certificate and key, which the agent makes at the first call and renews by itself.

        The key travels over the agent's HTTP API: use loopback, a unix socket or https. With ACLs the token needs
        `service:write`. See `instances` for `index` and `wait`.

        Raises:
            Rejected: Connect is switched off there; the message says how to switch it on.
            Denied: the token may not act for this service.
        """
        path = f"/v1/agent/connect/ca/leaf/{check_service(service)}"
        return read(await self._get(path, index, wait, None), _body(connect_json.leaf))

    async def roots(self, *, index: int = 0, wait: float = 0.0) -> Answer[Roots]:
        """Return the CA's root certificates, former ones too while leafs of theirs live. See `leaf` for the errors."""
        reply = await self._get("/v1/agent/connect/ca/roots", index, wait, None)
        # Consul answers from the agent's cache here and says "no known leader" whether there is one or not.
        return replace(read(reply, _body(connect_json.roots)), known_leader=True)

    async def rotate_ca(self, private_key_pem: str | None = None) -> Roots:
        """Give the CA a new root and return the roots as they are then; leafs are signed anew within Consul's jitter.

        The rest of the CA's configuration stays as it is. With ACLs the token needs `operator:write`.

        Args:
            private_key_pem: of the new root; None makes a new P-256 key.

        Raises:
            Rejected: another provider than Consul's own signs: its own tools rotate it.
        """
        told = await self._transport.request("GET", _CONFIGURATION, callback=CB.json())
        kept = read(told, connect_json.configuration).value
        if kept.provider != "consul":
            raise Rejected(f"the CA at {self.url} is {kept.provider!r}, not Consul's own: rotate it with its own tools")
        # A root certificate belongs to the key before, so it goes with it.
        config = {name: value for name, value in kept.config.items() if name not in {"RootCert", "PrivateKey"}}
        body = {"Provider": "consul", "Config": {**config, "PrivateKey": private_key_pem or _new_key()}}
        await self._transport.request("PUT", _CONFIGURATION, data=json.dumps(body), callback=CB.boolean())
        return read(await self._get("/v1/connect/ca/roots", 0, 0, None), _body(connect_json.roots)).value

    async def intentions(self, *, index: int = 0, wait: float = 0.0) -> Answer[tuple[Intention, ...]]:
        """Return who may call whom, what decides first comes first. See `instances` for `index` and `wait`.

        With ACLs Consul hides what the token may not read: it needs `intentions = "read"` on the destinations.
        """
        reply = await self._get(_INTENTIONS, index, wait, None, *self._any_server)
        return read(reply, _body(connect_json.intentions))

    async def put_intention(
        self,
        source: str,
        destination: str,
        action: Literal["allow", "deny", ""],
        permissions: Sequence[Permission] = (),
        *,
        description: str | None = None,
    ) -> None:
        """Write what holds for calls from `source` to `destination` (or "*"), in place of what was there.

        Args:
            action: for all calls; "" where `permissions` decide call by call (Consul 1.9 and later).
            description: None leaves the one that is there.

        Raises:
            ValueError: names or an action that Consul does not know, or both action and permissions.
            Rejected: permissions for a Consul before 1.9.
        """
        what = connect_json.intention_body(action, permissions)
        old = await self._find(_name(source), _name(destination))
        what["Description"] = description if description is not None else old.description if old else ""
        if await self._has_exact(source, destination):
            # Without Meta: it belongs to the destination's config entry there, stays, and is refused if it is sent.
            await self._send("PUT", _EXACT, what, source, destination)
            return
        if permissions:
            raise Rejected(
                f"the Consul at {self.url} knows no permissions by path and method (it is older than 1.9): write allow"
                " or deny, and put the paths into the policy's `authorization`"
            )
        meta = dict(old.meta) if old else {}
        await self._put_legacy({**what, "SourceName": source, "DestinationName": destination, "Meta": meta}, old)

    async def delete_intention(self, source: str, destination: str) -> bool:
        """Take away what was written for this pair; False if there is nothing."""
        old = await self._find(_name(source), _name(destination))
        if old is None:
            return False
        if await self._has_exact(source, destination):
            await self._send("DELETE", _EXACT, None, source, destination)
            return True
        try:
            await self._send("DELETE", f"{_INTENTIONS}/{old.id}")
        except Missing:  # somebody else was faster
            return False
        return True

    async def _put_legacy(self, body: dict[str, Any], old: Intention | None) -> None:
        try:
            if old is None:
                await self._send("POST", _INTENTIONS, body)
            else:
                await self._send("PUT", f"{_INTENTIONS}/{old.id}", body)
        except (Conflict, Missing):
            # Somebody else wrote or deleted the same pair meanwhile; the last word counts, as with the exact API.
            now = await self._find(body["SourceName"], body["DestinationName"])
            if (now and now.id) == (old and old.id):
                raise
            await self._put_legacy(body, now)

    async def _find(self, source: str, destination: str) -> Intention | None:
        # Of the leader: a stale list would have us create what is there.
        found = read(await self._get(_INTENTIONS, 0, 0, None), _body(connect_json.intentions)).value
        pairs = ((one.source, one.destination, one.foreign) for one in found)
        return next((one for one, pair in zip(found, pairs, strict=True) if pair == (source, destination, "")), None)

    async def _has_exact(self, source: str, destination: str) -> bool:
        """Ask for the pair by name: Consul before 1.9 takes `exact` for an id, and says what ids look like."""
        if self._by_name is None:
            try:
                await self._send("GET", _EXACT, None, source, destination)
                self._by_name = True
            except Missing:
                self._by_name = True
            except Rejected as error:
                if "UUID must be" not in str(error):
                    raise
                self._by_name = False
        return self._by_name

    async def _send(self, method: str, path: str, body: Any = None, *pair: str) -> None:
        text = None if body is None else json.dumps(body)
        params = list(zip(("source", "destination"), pair, strict=False))
        await self._transport.request(method, path, params, text, callback=lambda answer: answer.body)


def _body(decoder: Callable[[object], T]) -> Callable[[Any], T]:
    """A decoder of the body alone; py-consul's callback gives index and body."""
    return lambda pair: decoder(pair[1])


def _name(service: str) -> str:
    return service if service == "*" else check_service(service)


def _new_key() -> str:
    from cryptography.hazmat.primitives import serialization as form  # 20 ms that only a rotation costs
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.TraditionalOpenSSL, form.NoEncryption()).decode()
