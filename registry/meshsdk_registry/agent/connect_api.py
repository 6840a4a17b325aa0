"""The dev agent's Connect: its CA, and intentions by id (Consul 1.8.7) and by names (1.9 and later)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from meshsdk_registry.agent import certificates, connect_bodies, connect_views
from meshsdk_registry.agent.authority import today
from meshsdk_registry.agent.blocking import Found, News
from meshsdk_registry.agent.bodies import Refused
from meshsdk_registry.agent.intentions import Intention, Unfit
from meshsdk_registry.agent.requests import Handler, Query, received
from meshsdk_registry.agent.state import State

__all__ = ["ConnectApi"]


class ConnectApi:
    """Routes requests to the CA and the intentions.

    Args:
        read: makes a handler that may block of a query.
    """

    def __init__(self, state: State, news: News, read: Callable[[Query], Handler]) -> None:
        self._authority, self._intentions = state.authority, state.intentions
        self._default_allow = state.intention_default == "allow"
        self._news, self._read = news, read
        self._read_roots = read(self._roots)

    def routes(self) -> dict[str, dict[str, Handler]]:
        """Paths with their handlers by method."""
        return {
            "/v1/agent/connect/ca/roots": {"GET": self._read_roots},
            "/v1/agent/connect/ca/leaf/{service:path}": {"GET": self._read(self._leaf)},
            "/v1/agent/connect/authorize": {"POST": self._authorize},
            "/v1/connect/ca/roots": {"GET": self._roots_or_pem},
            "/v1/connect/ca/configuration": {"GET": self._configuration, "PUT": self._configure},
            "/v1/connect/intentions": {"GET": self._read(self._list), "POST": self._create},
            "/v1/connect/intentions/match": {"GET": self._match},
            "/v1/connect/intentions/check": {"GET": self._check},
            "/v1/connect/intentions/exact": {
                "GET": self._get_exact,
                "PUT": self._put_exact,
                "DELETE": self._delete_exact,
            },
            "/v1/connect/intentions/{id:path}": {"GET": self._get, "PUT": self._put, "DELETE": self._delete},
        }

    # --- the CA -------------------------------------------------------------------------------------

    def _roots(self, _request: Request) -> Found:
        return Found(self._authority.index, connect_views.roots(self._authority))

    async def _roots_or_pem(self, request: Request) -> Response:
        if request.query_params.get("pem", "false") not in {"1", "true"}:
            return await self._read_roots(request)
        chain = "".join(certificates.pem(root.signer.certificate) for root in self._authority.roots)
        return Response(chain, media_type="application/pem-certificate-chain")

    def _leaf(self, request: Request) -> Found:
        try:
            leaf = self._authority.leaf(request.path_params["service"])
        except ValueError as error:
            raise Refused(500, str(error)) from error
        return Found(leaf.modified, connect_views.leaf(leaf))

    async def _configuration(self, _request: Request) -> Response:
        return JSONResponse(connect_views.configuration(self._authority))

    async def _configure(self, request: Request) -> Response:
        self._authority.configure(connect_bodies.configuration(await received(request)))
        return Response()

    async def _authorize(self, request: Request) -> Response:
        target, source = connect_bodies.authorization(await received(request))
        found = self._intentions.deciding(source, target)
        default = "ACLs disabled, access is allowed by default"
        if not self._default_allow:
            default = "Default behavior configured by ACLs"
        reason = f"Matched intention: {found}" if found else default
        return JSONResponse({"Authorized": self._allowed(found), "Reason": reason})

    def _allowed(self, found: Intention | None) -> bool:
        return found.action == "allow" if found else self._default_allow

    # --- intentions by id ---------------------------------------------------------------------------

    def _list(self, request: Request) -> Found:
        if request.query_params.get("filter"):
            raise Refused(400, "the dev agent has no filters: leave filter out")
        return Found(self._intentions.index, [connect_views.intention(one) for one in self._intentions.all()])

    async def _create(self, request: Request) -> Response:
        new = connect_bodies.intention(await received(request), new=True)
        return JSONResponse({"ID": _fitting(lambda: self._intentions.create(new, today()))})

    async def _get(self, request: Request) -> Response:
        try:
            found = self._intentions.get(request.path_params["id"])
        except Unfit as error:
            raise Refused(400, f"Bad request: {error}") from error
        return _shown(found)

    async def _put(self, request: Request) -> Response:
        new = connect_bodies.intention(await received(request), new=False)
        key = self._known(request, "modify")
        _fitting(lambda: self._intentions.replace(key, new, today()))
        return JSONResponse({"ID": key})

    async def _delete(self, request: Request) -> Response:
        self._intentions.delete(self._known(request, "delete"))
        return JSONResponse(True)

    def _known(self, request: Request, verb: str) -> str:
        key: str = request.path_params["id"]
        try:
            found = self._intentions.get(key)
        except Unfit as error:
            raise Refused(500, f"Intention lookup failed: {error}") from error
        if found is None:
            raise Refused(500, f"Cannot {verb} non-existent intention: '{key}'")
        return key

    # --- intentions by names ------------------------------------------------------------------------

    async def _get_exact(self, request: Request) -> Response:
        return _shown(self._intentions.exact(*_pair(request)))

    async def _put_exact(self, request: Request) -> Response:
        source, destination = _pair(request)
        new = connect_bodies.exact_intention(await received(request), source, destination)
        old = self._intentions.exact(source, destination)
        if new.meta and (old is None or new.meta != old.meta):
            raise Refused(500, "Meta must not be specified, or should be unchanged during an update.")
        new = replace(new, meta=old.meta if old else {})
        _fitting(
            lambda: self._intentions.replace(old.id, new, today()) if old else self._intentions.create(new, today())
        )
        return JSONResponse(True)

    async def _delete_exact(self, request: Request) -> Response:
        found = self._intentions.exact(*_pair(request))
        if found:
            self._intentions.delete(found.id)
        return JSONResponse(True)

    async def _match(self, request: Request) -> Response:
        by = _parameter(request, "by")
        if by not in {"source", "destination"}:
            raise Refused(500, "'by' parameter must be one of 'source' or 'destination'")
        if "name" not in request.query_params:
            raise Refused(500, "required query parameter 'name' not set")
        found = {name: self._intentions.matching(by, name) for name in request.query_params.getlist("name")}
        return JSONResponse(
            {name: [connect_views.intention(one) for one in all_] or None for name, all_ in found.items()}
        )

    async def _check(self, request: Request) -> Response:
        source, destination = _pair(request)
        kind = request.query_params.get("source-type", "consul")
        if kind != "consul":
            raise Refused(500, f'unsupported SourceType: "{kind}"')
        found = self._intentions.deciding(source, destination)
        return JSONResponse({"Allowed": self._allowed(found)})


def _shown(found: Intention | None) -> Response:
    if found is None:
        return PlainTextResponse("Intention not found", 404)
    return JSONResponse(connect_views.intention(found))


def _fitting(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Unfit as error:
        raise Refused(500, str(error)) from error


def _parameter(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise Refused(500, f"required query parameter '{name}' not set")
    return value


def _pair(request: Request) -> tuple[str, str]:
    return _parameter(request, "source"), _parameter(request, "destination")
