"""Access log lines: what policy asks for, bounded to one line, never an error."""

from __future__ import annotations

import logging

import pytest

from meshsdk.core.events import CallEnded, Returned
from meshsdk.core.model import Call, Endpoint
from meshsdk.telemetry.access_log import AccessLog
from meshsdk.telemetry.context import Inbound, current
from meshsdk.telemetry.propagate import extract
from meshsdk.telemetry.requests import RequestEnded

ENDPOINT = Endpoint("a", "127.0.0.1", 8001)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def call(setting: str, status: int | None = 200, flag: str = "", path: str = "/charge?card=4242") -> CallEnded:
    endpoint = ENDPOINT if status else None
    return CallEnded(
        "payments", Call("POST", path), status, flag, "answered", 2, 0.0123456, 0.01, endpoint, "payments@41", setting
    )


def test_a_call_says_all_of_it(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "meshsdk.access")
    token = current.set(Inbound(trace=extract([(b"traceparent", f"00-{TRACE}-00f067aa0ba902b7-01".encode())])))
    AccessLog("checkout")(call("all"))
    current.reset(token)
    assert caplog.messages == [
        "direction=outbound source=checkout destination=payments method=POST path=/charge status=200 reason=answered "
        f"attempts=2 duration_ms=12.346 head_ms=10.0 endpoint=127.0.0.1:8001 policy=payments@41 trace_id={TRACE}"
    ]
    facts = vars(caplog.records[0])["mesh"]
    assert facts["attempts"] == 2
    assert facts["duration_ms"] == 12.346


def test_a_request_says_all_of_it(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "meshsdk.access")
    AccessLog("payments")(
        RequestEnded(
            "GET", "/orders/7?x=1", "/orders/{id}", 500, 0.5, error_type="KeyError", peer="spiffe://td/svc/web",
            client="10.0.0.9", trace_id=TRACE, access_log="all",
        )
    )  # fmt: skip
    assert caplog.messages == [
        "direction=inbound source=spiffe://td/svc/web client=10.0.0.9 destination=payments method=GET "
        "route=/orders/{id} path=/orders/7 status=500 error=KeyError duration_ms=500.0 "
        f"trace_id={TRACE}"
    ]


@pytest.mark.parametrize(
    ("setting", "status", "flag", "logged"),
    [
        ("off", 500, "", None),
        ("off", None, "UF", None),
        ("errors", 200, "", None),
        ("errors", 404, "", None),
        ("errors", 500, "", "WARNING"),
        ("errors", 200, "DC", "WARNING"),
        ("errors", None, "", "WARNING"),
        ("all", 200, "", "INFO"),
        ("all", 503, "UO", "WARNING"),
    ],
)
def test_policy_decides(
    caplog: pytest.LogCaptureFixture, setting: str, status: int | None, flag: str, logged: str | None
):
    caplog.set_level(logging.INFO, "meshsdk.access")
    AccessLog("checkout")(call(setting, status, flag))
    AccessLog("checkout")(RequestEnded("GET", "/", "/", status, 0.1, flag=flag, access_log=setting))
    assert [record.levelname for record in caplog.records] == ([logged] * 2 if logged else [])


def test_errors_show_without_any_logging_set_up(caplog: pytest.LogCaptureFixture):
    AccessLog("checkout")(call("all"))
    AccessLog("checkout")(call("errors", 500))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_other_events_are_heard_in_silence(caplog: pytest.LogCaptureFixture):
    AccessLog("checkout")(Returned("payments", ENDPOINT))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/a b", '"/a b"'),
        ("/a\nstatus=200", r'"/a\nstatus=200"'),
        ('/"', r'"/\""'),
        ("/\\", r'"/\\"'),
        ("/é\u2028", r'"/é\u2028"'),
        ("/100%s", "/100%s"),
        ("/\x1b[31m", r'"/\x1b[31m"'),
    ],
)
def test_a_path_cannot_forge_a_line(caplog: pytest.LogCaptureFixture, path: str, written: str):
    caplog.set_level(logging.INFO, "meshsdk.access")
    AccessLog("checkout")(call("all", path=path))
    assert f" path={written} status=200 " in caplog.messages[0]
    assert len(caplog.messages[0].splitlines()) == 1
