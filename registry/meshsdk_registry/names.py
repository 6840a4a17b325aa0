"""What may be a service's name and a key: refused here, with what to write, before Consul mangles it.

Consul accepts nearly any name and then loses it: a slash ends the route, `..` and `//` are "cleaned" into a redirect to
another key (Go's ServeMux), a space breaks DNS. All checks raise `ValueError`, because the caller's text is wrong.
"""

from __future__ import annotations

import re

from meshsdk_registry.model import Registration

__all__ = ["MAX_VALUE", "check_key", "check_prefix", "check_registration", "check_service"]

MAX_VALUE = 512 * 1024
"""Bytes of one value (`limits.kv_max_value_size`) and of one transaction (`txn_max_req_len`)."""

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123, section 2.1
_LOOKUP = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9_])?")


def check_service(name: str) -> str:
    """Return `name` if it can be looked up; others' registrations may hold dots and underscores too."""
    if not _LOOKUP.fullmatch(name):
        raise ValueError(
            f"service name {name!r}: write letters, digits and dashes, such as {_suggestion(name)!r};"
            " spaces and slashes cannot be part of a service name"
        )
    return name


def check_registration(registration: Registration) -> Registration:
    """Return `registration` if Consul and its callers can use it as it is."""
    if not _LABEL.fullmatch(registration.service):
        raise ValueError(
            f"service name {registration.service!r}: write a DNS label (letters, digits, dashes, at most 63),"
            f" such as {_suggestion(registration.service)!r}"
        )
    if not registration.id or re.search(r"[\s/?#%]", registration.id):
        raise ValueError(f"service id {registration.id!r}: write one word without slashes, such as 'web-8001'")
    if not 1 <= registration.port <= 65535:
        raise ValueError(f"port {registration.port} of {registration.id!r}: write the port callers reach, 1 to 65535")
    if re.search(r"[\s/]", registration.address):
        raise ValueError(
            f"address {registration.address!r} of {registration.id!r}: write a host or IP address, not a URL"
        )
    if registration.weight < 1:
        raise ValueError(f"weight {registration.weight} of {registration.id!r}: Consul takes 1 and more")
    if registration.ttl <= 0:
        raise ValueError(f"ttl {registration.ttl} of {registration.id!r}: write seconds above 0, such as 15")
    return registration


def check_key(key: str) -> str:
    """Return `key` if Consul stores it under exactly this name."""
    if not key:
        raise ValueError("empty key: write the key's path, such as 'mesh/policy/web'")
    return check_prefix(key)


def check_prefix(prefix: str) -> str:
    """Return `prefix` if Consul looks under exactly this name; the empty one means all keys."""
    steps = prefix.split("/")
    if prefix.startswith("/") or "" in steps[:-1] or any(step in {".", ".."} for step in steps):
        clean = "/".join(step for step in steps if step not in {"", ".", ".."})
        raise ValueError(f"key {prefix!r}: write {clean!r}; keys have no leading slash and no '//', '.' or '..'")
    if not prefix.isprintable():
        raise ValueError(f"key {prefix!r}: leave out the characters that cannot be printed")
    return prefix


def _suggestion(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "web"
