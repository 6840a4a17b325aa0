"""Which error a refusing answer of Consul is: a table of status and text."""

from __future__ import annotations

from meshsdk_registry import errors

__all__ = ["refusal"]

_BY_STATUS: dict[int, tuple[type[errors.RegistryError], str]] = {
    400: (errors.Rejected, ""),
    401: (errors.Denied, "ACLs are disabled there: leave the token out."),
    403: (errors.Denied, "Give a token whose policy allows this (registry/README.md lists the rules)."),
    404: (errors.Missing, ""),
    409: (errors.Conflict, "Read the keys again and retry."),
    413: (errors.TooLarge, "Make the value smaller than 512 KiB, or split it."),
    429: (errors.ServerFault, "Consul limits its load; asking again later is right."),
}

# Consul says much with a 500; what it says is in the text, which differs between versions.
_BY_TEXT: tuple[tuple[str, type[errors.RegistryError], str], ...] = (
    ("No cluster leader", errors.NoLeader, "The servers are electing; asking again later is right."),
    ("does not have associated TTL", errors.Missing, "Register the service anew."),
    (
        "Connect must be enabled",
        errors.Rejected,
        "Write `connect { enabled = true }` into the configuration of Consul's servers (`consul agent -dev` has it).",
    ),
    ("duplicate intention found", errors.Conflict, "Somebody wrote the same pair meanwhile: read again and retry."),
    ("non-existent intention", errors.Missing, "Somebody deleted it meanwhile: read again and retry."),
    ("rate limit reached", errors.ServerFault, "Consul limits how fast it signs; asking again later is right."),
    ("Unknown check", errors.Missing, "Register the service anew."),
    ("nknown service ID", errors.Missing, "Register the service anew."),
    (
        "No path to datacenter",
        errors.Rejected,
        "Correct the datacenter's name; `consul catalog datacenters` lists them.",
    ),
    ("ACL not found", errors.Denied, "The token is unknown to Consul: give one that exists."),
    ("Permission denied", errors.Denied, "Give a token whose policy allows this (registry/README.md lists the rules)."),
)


def refusal(url: str, what: str, status: int, text: str) -> errors.RegistryError:
    """Return the error for an answer outside 2xx, with address, request, Consul's own words and the remedy."""
    kind, remedy = _kind(status, text)
    said = " ".join(text.split())[:200]
    message = f"{what} at {url}: {status} {said}".rstrip()
    return kind(f"{message}. {remedy}" if remedy else message)


def _kind(status: int, text: str) -> tuple[type[errors.RegistryError], str]:
    if status < 400:
        return errors.Misunderstood, "Consul does not redirect: another program or a proxy listens there."
    if status >= 500 or status == 404:
        for words, kind, remedy in _BY_TEXT:
            if words in text:
                return kind, remedy
    if status >= 500:
        return errors.ServerFault, "Consul's own log says more."
    return _BY_STATUS.get(status, (errors.Rejected, ""))
