"""Reads the bodies of requests to the dev agent as Consul's Go code does: any case, unknown fields refused.

What the dev agent cannot do is refused too, never ignored: it runs TTL checks only.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, TypeVar

from meshsdk_registry.agent.catalog import Check, Node, Service
from meshsdk_registry.agent.keys import Step
from meshsdk_registry.agent.state import MIN_DEREGISTER, Ttl

__all__ = ["Fields", "Refused", "check_update", "duration", "parse", "registration", "removal", "steps", "write"]

T = TypeVar("T")

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STATUSES = ("passing", "warning", "critical")
_EXTRA = ("EnableTagOverride", "TaggedAddresses", "Connect", "Proxy", "Kind")
_SERVICE = f"ID Name Service Tags Address Port Meta Weights Check Checks Token Namespace {' '.join(_EXTRA)}"
_CHECK = (
    "CheckID ID Name Status Notes Output TTL DeregisterCriticalServiceAfter ServiceID ServiceName Node Type Definition"
)


class Refused(Exception):
    """A request answered with a status outside 2xx and a text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Fields:
    """One JSON object, its names in any case and with or without underscores, as Go and its aliases allow."""

    def __init__(self, body: Any, known: str) -> None:
        if not isinstance(body, dict):
            raise Refused(400, f"Request decode failed: json: cannot unmarshal {_kind(body)} into Go value")
        names = {_plain(name): name for name in known.split()}
        for name in body:
            if _plain(name) not in names:
                raise Refused(400, f'Request decode failed: json: unknown field "{name}"')
        self._values = {names[_plain(name)]: value for name, value in body.items() if value is not None}

    def get(self, name: str, kind: type[T], default: T) -> T:
        """A field of a kind, `default` where it is absent or null."""
        value = self._values.get(name, default)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            target = f"Go struct field .{name} of type {'string' if kind is str else kind.__name__}"
            raise Refused(400, f"Request decode failed: json: cannot unmarshal {_kind(value)} into {target}")
        return value

    def raw(self, name: str) -> Any:
        """A field as it came, None where it is absent."""
        return self._values.get(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(str(item) for item in self.get(name, list, []))

    def seconds(self, name: str) -> float:
        """A Go duration, 0 where it is absent."""
        text = self.get(name, str, "")
        return duration(text) if text else 0.0


def parse(body: bytes) -> Any:
    """Read JSON, or refuse it in Go's words."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refused(
            400, "Request decode failed: unexpected EOF" if not body.strip().endswith(b"}") else str(error)
        ) from error


def duration(text: str) -> float:
    """Seconds of a Go duration such as "10s" or "1m30s"."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+|0", text):
        raise Refused(400, f'Request decode failed: time: invalid duration "{text}"')
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ns|us|µs|ms|s|m|h)", text))


def registration(body: bytes, node: str) -> tuple[Service, list[tuple[Check, Ttl | None]]]:
    """`/v1/agent/service/register`."""
    fields = Fields(parse(body), _SERVICE)
    name = fields.get("Name", str, "")
    if not name:
        raise Refused(400, "Missing service name")
    service = _service(fields, node, fields.get("ID", str, "") or name, name)
    bodies = ([fields.raw("Check")] if fields.raw("Check") else []) + fields.get("Checks", list, [])
    many = len(bodies) > 1
    checks = []
    for n, entry in enumerate(bodies, 1):
        default = f"service:{service.id}:{n}" if many else f"service:{service.id}"
        checks.append(_ttl_check(Fields(entry, _CHECK), service, default))
    return service, checks


def check_update(body: bytes) -> tuple[str, str]:
    """`/v1/agent/check/update`: status and output."""
    fields = Fields(parse(body), "Status Output")
    status = fields.get("Status", str, "")
    if status not in _STATUSES:
        raise Refused(400, f"Invalid check status: '{status}'")
    return status, fields.get("Output", str, "")


def write(body: bytes) -> tuple[Node, Service | None, list[Check]]:
    """`/v1/catalog/register`."""
    known = "Node Address Datacenter ID NodeMeta TaggedAddresses Service Check Checks SkipNodeUpdate WriteRequest"
    fields = Fields(parse(body), known)
    node, address = fields.get("Node", str, ""), fields.get("Address", str, "")
    if not node:
        raise Refused(500, "Must provide node")
    if not address and not fields.get("SkipNodeUpdate", bool, default=False):
        raise Refused(500, "Must provide address if SkipNodeUpdate is not set")
    service = None
    if fields.raw("Service"):
        inner = Fields(fields.raw("Service"), _SERVICE)
        name = inner.get("Service", str, "")
        if not name:
            raise Refused(500, "Must provide service name with ID")
        service = _service(inner, node, inner.get("ID", str, "") or name, name)
    bodies = ([fields.raw("Check")] if fields.raw("Check") else []) + fields.get("Checks", list, [])
    checks = [_plain_check(Fields(entry, _CHECK), node) for entry in bodies]
    return Node(node, address, fields.get("ID", str, ""), fields.raw("NodeMeta")), service, checks


def removal(body: bytes) -> tuple[str, str, str]:
    """`/v1/catalog/deregister`: node, service id, check id; the latter two may be empty."""
    fields = Fields(parse(body), "Node ServiceID CheckID Datacenter WriteRequest Namespace")
    node = fields.get("Node", str, "")
    if not node:
        raise Refused(500, "Must provide node")
    return node, fields.get("ServiceID", str, ""), fields.get("CheckID", str, "")


def steps(body: bytes) -> list[Step]:
    """`/v1/txn`: operations on KV; the other kinds are refused."""
    operations = parse(body)
    if not isinstance(operations, list):
        raise Refused(400, "Failed to parse body: expected a list of operations")
    if len(operations) > 64:
        raise Refused(413, f"Transaction contains too many operations ({len(operations)} > 64)")
    return [_step(Fields(operation, "KV").raw("KV")) for operation in operations]


def _step(body: Any) -> Step:
    fields = Fields(body, "Verb Key Value Flags Index Session")
    if fields.raw("Session"):
        raise Refused(400, "the dev agent has no sessions: leave Session out")
    try:
        value = base64.b64decode(fields.get("Value", str, ""), validate=True)
    except binascii.Error as error:
        raise Refused(400, f"Failed to parse body: Failed to decode value: {error}") from error
    return Step(
        fields.get("Verb", str, ""),
        fields.get("Key", str, ""),
        value,
        fields.get("Flags", int, 0),
        fields.get("Index", int, 0),
    )


def _service(fields: Fields, node: str, service_id: str, name: str) -> Service:
    weights = Fields(fields.raw("Weights") or {"Passing": 1, "Warning": 1}, "Passing Warning")
    passing = weights.get("Passing", int, 1)
    if passing < 1:
        raise Refused(400, "Invalid Weights: Passing must be greater than 0")
    return Service(
        node=node,
        id=service_id,
        name=name,
        address=fields.get("Address", str, ""),
        port=fields.get("Port", int, 0),
        tags=fields.texts("Tags"),
        meta=fields.get("Meta", dict, {}),
        passing=passing,
        warning=weights.get("Warning", int, 1),
        extra=tuple((key, fields.raw(key)) for key in _EXTRA if fields.raw(key) is not None),
    )


def _ttl_check(fields: Fields, service: Service, default_id: str) -> tuple[Check, Ttl | None]:
    ttl = fields.seconds("TTL")
    if ttl <= 0:
        raise Refused(400, "Invalid check: TTL must be > 0 for TTL checks")
    after = fields.seconds("DeregisterCriticalServiceAfter")
    check = Check(
        node=service.node,
        id=fields.get("CheckID", str, "") or fields.get("ID", str, "") or default_id,
        name=fields.get("Name", str, "") or f"Service '{service.name}' check",
        status=_status(fields),
        notes=fields.get("Notes", str, ""),
        service_id=service.id,
        kind="ttl",
    )
    return check, Ttl(ttl, None, max(after, MIN_DEREGISTER) if after else 0.0)


def _plain_check(fields: Fields, node: str) -> Check:
    name = fields.get("Name", str, "")
    return Check(
        node=node,
        id=fields.get("CheckID", str, "") or name,
        name=name,
        status=_status(fields),
        notes=fields.get("Notes", str, ""),
        output=fields.get("Output", str, ""),
        service_id=fields.get("ServiceID", str, ""),
    )


def _status(fields: Fields) -> str:
    status = fields.get("Status", str, "") or "critical"
    if status not in _STATUSES:
        raise Refused(400, f"Invalid check status: '{status}'")
    return status


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _kind(value: Any) -> str:
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")
