"""What spans say of HTTP, in the stable semantic conventions of OpenTelemetry."""

from __future__ import annotations

import re
from asyncio import CancelledError
from urllib.parse import urlsplit

from opentelemetry.trace import Span, Status, StatusCode

from meshsdk.telemetry.names import known_method

__all__ = ["Attributes", "method_attributes", "port_of", "safe_url", "settle", "span_word"]

Attributes = dict[str, str | int]

# Query keys the HTTP conventions want redacted by default: signed URLs of AWS, Google and Azure.
_SIGNATURES = re.compile(r"(?<=[?&])(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&#]*")
_USERINFO = re.compile(r"(?<=://)[^/?#]*@")


def safe_url(url: str) -> str:
    """The URL without credentials: neither user and password, nor signatures in its query."""
    if "@" not in url and "?" not in url:
        return url
    return _SIGNATURES.sub(r"\1=REDACTED", _USERINFO.sub("REDACTED:REDACTED@", url))


def method_attributes(method: str) -> Attributes:
    """`http.request.method`, bounded; an unknown one is told beside it."""
    known = known_method(method)
    if known == method:
        return {"http.request.method": method}
    return {"http.request.method": known, "http.request.method_original": method}


def span_word(method: str) -> str:
    """How a span's name begins: the method, or `HTTP` for an unknown one."""
    return "HTTP" if (known := known_method(method)) == "_OTHER" else known


def port_of(url: str) -> int:
    """The port of a URL, its scheme's where it has none."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def settle(span: Span, status: int | None, problem: BaseException | str | None, blame_from: int) -> None:
    """Say how it went, and end the span.

    Args:
        status: of the reply, None without one.
        problem: an exception, or a failure's kind; a cancellation is nobody's error.
        blame_from: the least status that is an error without a `problem`: 400 for clients, 500 for servers.
    """
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if problem == "cancelled" or isinstance(problem, (CancelledError, GeneratorExit)):
        span.set_attribute("mesh.response_flags", "DC")
    elif problem is not None or (status is not None and status >= blame_from):
        span.set_attribute("error.type", str(status) if problem is None else _kind(problem))
        span.set_status(Status(StatusCode.ERROR))
        if isinstance(problem, BaseException):
            span.record_exception(problem)
    span.end()


def _kind(problem: BaseException | str) -> str:
    if isinstance(problem, str):
        return problem
    return f"{type(problem).__module__}.{type(problem).__qualname__}".removeprefix("builtins.")
