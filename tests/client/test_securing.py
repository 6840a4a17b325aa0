"""How a connection is secured: the policy's mode, what the instance offers, and who we are, in one table."""

from __future__ import annotations

import ssl
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from meshsdk.core.model import Endpoint
from meshsdk.identity.securing import TLS_META, Securing
from meshsdk.policy.effective import DEFAULTS
from meshsdk.wire.security import PeerRejected, Security
from tests.core.world import World

OURS = Security(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "payments")


class Identity:
    """An identity in one of its states."""

    generation = 3

    def __init__(self, state: str) -> None:
        self.state = SimpleNamespace(name=state, reason="a certificate that has expired")

    def client_security(self, service: str) -> Security:
        assert service == "payments"
        if self.state.name == "expired":
            raise ConnectionError("expired")
        return OURS


def securing(mode: str, state: str | None) -> Securing:
    cluster = World(replace(DEFAULTS, tls=mode)).cluster
    identity: Any = Identity(state) if state else None
    return Securing(identity, {"payments": cluster}.get)


def outcome(mode: str, offers: str, state: str | None) -> str:
    meta = {TLS_META: offers} if offers else {}
    try:
        found = securing(mode, state)(Endpoint("k", "10.0.0.1", 80, meta=meta), "payments")
    except PeerRejected:
        return "refused"
    except ConnectionError:
        return "expired"
    return "clear" if found is None else "mtls"


TABLE = [
    # mode, offers, (no identity, none yet, valid, expired)
    ("strict", "strict", ("refused", "refused", "mtls", "expired")),
    ("strict", "permissive", ("refused", "refused", "mtls", "expired")),
    ("strict", "", ("refused", "refused", "refused", "refused")),
    ("permissive", "strict", ("refused", "refused", "mtls", "expired")),
    ("permissive", "permissive", ("clear", "clear", "mtls", "expired")),
    ("permissive", "", ("clear", "clear", "clear", "clear")),
    ("off", "strict", ("refused", "refused", "refused", "refused")),
    ("off", "permissive", ("clear", "clear", "clear", "clear")),
    ("off", "", ("clear", "clear", "clear", "clear")),
]


@pytest.mark.parametrize(("mode", "offers", "outcomes"), TABLE)
def test_the_table(mode: str, offers: str, outcomes: tuple[str, ...]) -> None:
    assert tuple(outcome(mode, offers, state) for state in (None, "none", "valid", "expired")) == outcomes


@pytest.mark.parametrize(
    ("mode", "offers", "state", "words"),
    [
        (
            "strict",
            "",
            "valid",
            "tls.mode of payments is strict, and 10.0.0.1:80 is registered as taking clear text only",
        ),
        ("strict", "strict", None, "tls.mode of payments is strict, and this process has no identity"),
        ("permissive", "strict", None, "10.0.0.1:80 takes mTLS only, and this process has no identity"),
        ("off", "strict", "valid", "10.0.0.1:80 takes mTLS only, and tls.mode is off in its policy"),
    ],
)
def test_a_refusal_says_why(mode: str, offers: str, state: str | None, words: str) -> None:
    meta = {TLS_META: offers} if offers else {}
    with pytest.raises(PeerRejected, match=words):
        securing(mode, state)(Endpoint("k", "10.0.0.1", 80, meta=meta), "payments")


def test_a_service_without_a_policy_yet_is_permissive() -> None:
    identity: Any = Identity("valid")
    found = Securing(identity, {}.get)
    assert found(Endpoint("k", "10.0.0.1", 80), "payments") is None
    assert found(Endpoint("k", "10.0.0.1", 80, meta={TLS_META: "permissive"}), "payments") is OURS
    assert found.generation == 3
    assert Securing(None, {}.get).generation == 0
