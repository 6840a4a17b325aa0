"""`answers` for gunicorn."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from answers import answer


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    found = answer(environ["PATH_INFO"], environ.get("HTTP_IF_NONE_MATCH", ""), _body(environ))
    peer = f"{environ['REMOTE_ADDR']}:{environ['REMOTE_PORT']}"
    start_response(f"{found.status} {HTTPStatus(found.status).phrase}", [*found.headers, ("x-peer", peer)])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else found.pieces


def _body(environ: dict[str, Any]) -> Iterator[bytes]:
    while piece := environ["wsgi.input"].read(65536):
        yield piece
