"""What is told to another process arrives there as it was, and is found out again what it had found out for itself."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from meshsdk.core.access import Access, Decision, Rule
from meshsdk.core.events import CallEnded
from meshsdk.core.model import Call, Endpoint, Snapshot
from meshsdk.core.plan import Balancing, Breaker, Limits, Outlier, Plan, Retries, Timeouts
from meshsdk.core.request import Header, Request
from meshsdk.core.tokens import Issuer, Jwt
from meshsdk.telemetry.requests import RequestEnded, RequestStarted

RULE = Rule("no-delete", "deny", methods=("DELETE",), headers=(Header("x-a", exact="b"),), audit=True)
PLAN = Plan(
    version="payments@41",
    timeouts=Timeouts(15.0, 5.0, 1.0, 0.0),
    retries=Retries(3, True, True, frozenset({502, 503}), False, 0.025, 0.25, 0.2, 10.0, 10.0),
    breaker=Breaker(5, 10.0, 1),
    limits=Limits(100, 10, 8),
    outlier=Outlier(5, 0.0, 10, 10.0, 30.0, 300.0, 50.0),
    balancing=Balancing("peak-ewma", 50.0),
    access_log="errors",
    access=Access("allow", (RULE,)),
    jwt=Jwt((Issuer("https://issuer", "/keys", ("web",)),), paths=("/api/*",)),
)
ENDPOINT = Endpoint("a", "::1", 80, weight=2.0, zone="b", meta={"mesh-tls": "strict"})
CALL = Call("GET", "/", deadline=3.0)
VALUES: list[Any] = [
    PLAN,
    Decision(False, "no-delete", "because"),
    Snapshot("payments", (ENDPOINT,)),
    CALL,
    CallEnded("payments", CALL, 200, "", "ok", 1, 0.5, 0.25, ENDPOINT, "payments@41", "all"),
    RequestStarted("GET"),
    RequestEnded("GET", "/orders/1", "/orders/{id}", None, 0.5, refused=True),
]


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, sent], ids=["copy", "deepcopy", "sent"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_the_other_is_equal_and_has_all_fields(again: Callable[[Any], Any], value: Any) -> None:
    other = again(value)
    assert other == value
    assert repr(other) == repr(value)


def test_a_plan_that_was_sent_decides() -> None:
    plan = sent(PLAN)
    for method, rule in (("DELETE", "no-delete"), ("GET", None)):
        request = Request(None, "", method, "/", lambda _: ["b"])
        assert plan.access.decide(request).audited == rule
