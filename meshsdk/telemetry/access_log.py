"""One line per call and per request on the logger `meshsdk.access`, as `key=value`; `record.mesh` has the same facts.

What is written is policy, not the logger's level: `off`, `errors` (no answer, a response flag, a 5xx, or an access rule
on trial that would have decided otherwise) or `all`.
Errors are logged as WARNING, so that `errors` shows without any logging set up; the rest as INFO.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from meshsdk.core.events import CallEnded
from meshsdk.telemetry.propagate import parse_traceparent
from meshsdk.telemetry.requests import RequestEnded
from meshsdk.telemetry.tracing import current_trace_id

__all__ = ["AccessLog", "is_failure"]

Fact = str | int | float | None

_PLAIN: Final = re.compile(r"[\x21\x23-\x3c\x3e-\x5b\x5d-\x7e]+")
_ESCAPES: Final = {'"': r"\"", "\\": r"\\"}


def is_failure(status: int | None, flag: str) -> bool:
    """Whether `errors` asks for a line about this outcome."""
    return status is None or status >= 500 or flag != ""


class AccessLog:
    """A sink for the ends of calls and requests; it never raises, and hears other events without a word.

    Args:
        service: our own name: the source of calls, the destination of requests.
        logger: where lines go; None is `meshsdk.access`.
    """

    hears = (CallEnded, RequestEnded)  # `Fanout` spares us the rest

    def __init__(self, service: str, logger: logging.Logger | None = None) -> None:
        self._service = service
        self._log = logger or logging.getLogger("meshsdk.access")

    def __call__(self, event: object) -> None:
        """Log the end of a call or request where its `access_log` asks for it."""
        if not isinstance(event, self.hears) or event.access_log == "off":
            return
        failed = is_failure(event.status, event.flag) or (isinstance(event, RequestEnded) and event.audited != "")
        if not failed and event.access_log != "all":
            return
        level = logging.WARNING if failed else logging.INFO
        if self._log.isEnabledFor(level):
            self._write(level, self._of_call(event) if isinstance(event, CallEnded) else self._of_request(event))

    def _write(self, level: int, facts: dict[str, Fact]) -> None:
        told = {key: value for key, value in facts.items() if value is not None and value != ""}
        text = " ".join(f"{key}={_plain(value)}" for key, value in told.items())
        # As an argument: a % in a path is not a format. Logging itself reports a handler that raises to stderr.
        self._log.log(level, "%s", text, extra={"mesh": told})

    def _of_call(self, ended: CallEnded) -> dict[str, Fact]:
        return {
            "direction": "outbound",
            "source": self._service,
            "destination": ended.service,
            "method": ended.call.method,
            "path": ended.call.path.partition("?")[0],
            "status": ended.status,
            "flags": ended.flag,
            "reason": ended.reason,
            "attempts": ended.attempts,
            "duration_ms": _milliseconds(ended.seconds),
            "head_ms": _milliseconds(ended.head_seconds),
            "endpoint": None if ended.endpoint is None else str(ended.endpoint),
            "policy": ended.policy,
            "trace_id": _trace_id(ended.call.traceparent) or current_trace_id(),
        }

    def _of_request(self, ended: RequestEnded) -> dict[str, Fact]:
        return {
            "direction": "inbound",
            "source": ended.peer or None,
            "client": ended.client,
            "destination": self._service,
            "method": ended.method,
            "route": ended.route,
            "path": ended.path.partition("?")[0],
            "status": ended.status,
            "flags": ended.flag,
            "rule": ended.rule,
            "reason": ended.reason,
            "audited": ended.audited,
            "error": ended.error_type,
            "duration_ms": _milliseconds(ended.seconds),
            "trace_id": ended.trace_id or current_trace_id(),
        }


def _trace_id(traceparent: bytes) -> str:
    parsed = parse_traceparent(traceparent.decode("latin-1")) if traceparent else None
    return "" if parsed is None else parsed.trace_id


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _plain(value: Fact) -> str:
    """The value as it is, or quoted where it could be taken for more than one: spaces, quotes, `=`, line ends."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
