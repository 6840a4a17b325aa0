"""What is remembered of a service beyond the process's life, and its form as JSON. Pure.

The form carries a number; a file of another one, of another Consul or with any value out of shape is no memory at all:
half a memory could send calls to the wrong place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from meshsdk.core.model import Endpoint
from meshsdk_registry import Intention

__all__ = ["KeptDocument", "KeptIntentions", "Memory", "dump", "read"]

FORM = 1


@dataclass(frozen=True, slots=True)
class KeptDocument:
    """A policy document that was found good, as it stood in KV, and its ModifyIndex."""

    text: str
    index: int


@dataclass(frozen=True, slots=True)
class KeptIntentions:
    """Consul's intentions that are about one service, and what held where none is.

    Attributes:
        default: `allow`, `deny`, or empty where Consul did not tell.
    """

    entries: tuple[Intention, ...] = ()
    default: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """The last known good of one service.

    Attributes:
        endpoints: never in limbo: whether they exist is for Consul to say.
        documents: by name: the service's own and `_mesh`, as far as there are any.
        age: seconds since it was written, when it was read.
        intentions: who may call it; None where that is not what is remembered here.
    """

    endpoints: tuple[Endpoint, ...] = ()
    documents: Mapping[str, KeptDocument] = field(default_factory=dict)
    age: float = 0.0
    intentions: KeptIntentions | None = None


def dump(service: str, origin: str, memory: Memory) -> bytes:
    """Write a memory down.

    Args:
        origin: the Consul it is from; the memory counts for no other.
    """
    content: dict[str, Any] = {
        "form": FORM,
        "service": service,
        "origin": origin,
        "endpoints": [_fields(endpoint) for endpoint in memory.endpoints],
        "documents": {name: [kept.text, kept.index] for name, kept in memory.documents.items()},
    }
    if memory.intentions is not None:
        content["intentions"] = asdict(memory.intentions)
    return json.dumps(content, separators=(",", ":")).encode()


def read(text: bytes, service: str, origin: str, age: float) -> Memory:
    """Read what `dump` wrote; raises ValueError that says why it cannot be used."""
    try:
        content = json.loads(text)
        if (form := content["form"]) != FORM:
            raise ValueError(f"it has form {form!r}, this version reads {FORM}")
        if (content["service"], content["origin"]) != (service, origin):
            raise ValueError(f"it is of {content['service']!r} in {content['origin']!r}, not in {origin!r}")
        endpoints = tuple(_endpoint(fields) for fields in content["endpoints"])
        documents = {name: _document(kept) for name, kept in content["documents"].items()}
        intentions = _intentions(content["intentions"]) if "intentions" in content else None
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from None
    if len({endpoint.key for endpoint in endpoints}) != len(endpoints):
        raise ValueError("it is damaged (two endpoints of the same key)")
    return Memory(endpoints, documents, age, intentions)


def _fields(endpoint: Endpoint) -> list[Any]:
    e = endpoint
    return [e.key, e.address, e.port, e.weight, e.zone, e.healthy, dict(e.meta)]


def _endpoint(fields: Any) -> Endpoint:
    key, address, port, weight, zone, healthy, meta = fields
    endpoint = Endpoint(key, address, port, weight, zone, healthy, meta=meta)
    kinds: tuple[tuple[Any, type], ...] = (
        *((text, str) for text in (key, address, zone, *meta, *meta.values())),
        (port, int),
        (weight, float),
        (healthy, bool),
    )
    for value, kind in kinds:
        if type(value) is not kind:
            raise TypeError(f"{value!r} in the place of {kind.__name__}")
    if not (key and address and 0 < port < 65536 and 0 < weight < float("inf")):
        raise TypeError(f"endpoint {key!r} at {address!r}:{port} of weight {weight}")
    return replace(endpoint, meta=dict(meta))


def _document(kept: Any) -> KeptDocument:
    text, index = kept
    if type(text) is not str or type(index) is not int:
        raise TypeError(f"document {kept!r:.60}")
    return KeptDocument(text, index)


def _intentions(fields: Any) -> KeptIntentions:
    """A condition that is left out would let more callers pass: what is read must be all that was written."""
    kept: KeptIntentions = _as(KeptIntentions, fields)
    if kept.default not in {"", "allow", "deny"}:
        raise TypeError(f"{kept.default!r} in the place of allow or deny")
    return kept


def _as(form: Any, value: Any) -> Any:
    """A plain value as an annotation has it: every field there and no other, each of its very type."""
    if is_dataclass(form):
        return _of(form, value)
    origin, inner = get_origin(form), get_args(form)
    if origin is tuple and type(value) is list:
        return tuple(_as(inner[0], item) for item in value)
    if origin is Mapping and type(value) is dict:
        return {key: _as(inner[1], item) for key, item in value.items()}
    if type(value) is form or (origin is Literal and type(value) is str and value in inner):
        return value
    raise TypeError(f"{value!r:.60} in the place of {form}")


def _of(form: Any, fields: Any) -> Any:
    hints = _hints(form)
    if type(fields) is not dict or fields.keys() != hints.keys():
        raise TypeError(f"{form.__name__} with something missing or unknown")
    return form(**{name: _as(hint, fields[name]) for name, hint in hints.items()})


@cache
def _hints(form: Any) -> dict[str, Any]:
    return get_type_hints(form)
