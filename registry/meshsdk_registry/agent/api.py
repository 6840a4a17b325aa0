"""The dev agent's HTTP API: the part of Consul's that this package uses, as one ASGI application."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from meshsdk_registry.agent import bodies, views
from meshsdk_registry.agent.blocking import Blocking, Found, News
from meshsdk_registry.agent.bodies import Refused
from meshsdk_registry.agent.connect_api import ConnectApi
from meshsdk_registry.agent.requests import Handler, Query, received
from meshsdk_registry.agent.state import State

__all__ = ["Api"]

_METHODS = ["GET", "PUT", "POST", "DELETE", "PATCH"]
_TEXTS = {"pass": "passing", "warn": "warning", "fail": "critical"}


class Api:
    """Routes requests to the state.

    Args:
        clock: monotonic seconds, for TTLs.
    """

    def __init__(self, state: State, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = state
        self.news = News()
        self._clock = clock
        self._rng = random.Random()
        state.journal.watcher = self.news.wake
        self.app = Starlette(routes=self._routes())

    def _routes(self) -> list[Route]:
        catalog = self.state.catalog
        table: dict[str, dict[str, Handler]] = {
            "/v1/status/leader": {"GET": self._leader},
            "/v1/agent/self": {"GET": self._self},
            "/v1/agent/services": {"GET": self._local_services},
            "/v1/agent/checks": {"GET": self._local_checks},
            "/v1/agent/service/register": {"PUT": self._register},
            "/v1/agent/service/deregister/{id:path}": {"PUT": self._deregister},
            "/v1/agent/service/maintenance/{id:path}": {"PUT": self._maintenance},
            "/v1/agent/check/update/{id:path}": {"PUT": self._update_check},
            "/v1/agent/check/deregister/{id:path}": {"PUT": self._drop_check},
            "/v1/agent/check/{word:path}": {"PUT": self._beat},
            "/v1/catalog/register": {"PUT": self._write},
            "/v1/catalog/deregister": {"PUT": self._remove},
            "/v1/catalog/nodes": {"GET": self._read(lambda _: self._nodes())},
            "/v1/catalog/services": {"GET": self._read(lambda _: Found(*catalog.names()))},
            "/v1/catalog/service/{name:path}": {"GET": self._read(self._catalog_service)},
            "/v1/health/service/{name:path}": {"GET": self._read(self._health_service)},
            "/v1/health/checks/{name:path}": {"GET": self._read(self._health_checks)},
            "/v1/health/node/{name:path}": {"GET": self._read(self._health_node)},
            "/v1/kv/{key:path}": {"GET": self._read(self._get_key), "PUT": self._put_key, "DELETE": self._delete_key},
            "/v1/txn": {"PUT": self._txn},
            **ConnectApi(self.state, self.news, self._read).routes(),
        }
        routes = [Route(path, _answering(handlers), methods=_METHODS) for path, handlers in table.items()]
        return [*routes, Route("/{path:path}", _unknown, methods=_METHODS)]

    def _read(self, query: Query) -> Handler:
        async def answer(request: Request) -> Response:
            params = request.query_params
            if "stale" in params and "consistent" in params:
                raise Refused(400, "Cannot specify ?stale with ?consistent, conflicting semantics.")
            if params.get("dc") not in {None, "", self.state.datacenter}:
                raise Refused(500, "No path to datacenter")
            found = await Blocking(request, self._rng).run(lambda: query(request), self.news)
            headers = {
                "X-Consul-Index": str(max(1, found.index)),
                "X-Consul-KnownLeader": "true",
                "X-Consul-LastContact": "0",
                "X-Consul-Effective-Consistency": "stale" if "stale" in params else "leader",
            }
            if found.payload is None:
                return Response(status_code=404, headers=headers)
            if isinstance(found.payload, bytes):
                return Response(found.payload, media_type="text/plain", headers=headers)
            return JSONResponse(found.payload, headers=headers)

        return answer

    # --- agent --------------------------------------------------------------------------------------

    async def _leader(self, _request: Request) -> Response:
        return JSONResponse("127.0.0.1:8300")

    async def _self(self, _request: Request) -> Response:
        return JSONResponse(views.agent_self(self.state))

    async def _local_services(self, _request: Request) -> Response:
        return JSONResponse({key: views.local_service(item) for key, item in self.state.local_services().items()})

    async def _local_checks(self, _request: Request) -> Response:
        return JSONResponse({key: views.check(self.state, item) for key, item in self.state.local_checks().items()})

    async def _register(self, request: Request) -> Response:
        service, checks = bodies.registration(await received(request), self.state.node)
        self.state.register(service, checks, self._clock())
        self.news.wake()  # an equal service with a shorter TTL moves no index, yet its deadline is nearer
        return Response()

    async def _deregister(self, request: Request) -> Response:
        self.state.deregister(request.path_params["id"])
        return Response()

    async def _maintenance(self, request: Request) -> Response:
        words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
        given = request.query_params.get("enable", "")
        if not given:
            raise Refused(400, "Missing value for enable")
        if given.lower() not in words:
            raise Refused(400, f'Invalid value for enable: "{given}"')
        reason = request.query_params.get("reason", "")
        try:
            self.state.maintain(request.path_params["id"], enable=words[given.lower()], reason=reason)
        except LookupError as error:
            raise Refused(404, str(error.args[0])) from error
        return Response()

    async def _beat(self, request: Request) -> Response:
        word, _, check_id = request.path_params["word"].partition("/")
        if word not in _TEXTS or not check_id:
            return Response(status_code=404)
        return self._set_check(check_id, _TEXTS[word], request.query_params.get("note", ""))

    async def _update_check(self, request: Request) -> Response:
        return self._set_check(request.path_params["id"], *bodies.check_update(await received(request)))

    async def _drop_check(self, request: Request) -> Response:
        self.state.drop_check(request.path_params["id"])
        return Response()

    def _set_check(self, check_id: str, status: str, output: str) -> Response:
        try:
            self.state.update_check(check_id, status, output, self._clock())
        except LookupError as error:
            raise Refused(500, str(error.args[0])) from error
        self.news.wake()  # the deadline moved
        return Response()

    # --- catalog and health -------------------------------------------------------------------------

    async def _write(self, request: Request) -> Response:
        node, service, checks = bodies.write(await received(request))
        if node.address:
            self.state.catalog.put_node(node)
        if node.name not in self.state.catalog.nodes:
            raise Refused(500, f'Node "{node.name}" is not registered: give its address')
        if service:
            self.state.catalog.put_service(service)
        try:
            for check in checks:
                self.state.catalog.put_check(check)
        except LookupError as error:
            raise Refused(500, str(error.args[0])) from error
        return JSONResponse(True)

    async def _remove(self, request: Request) -> Response:
        node, service_id, check_id = bodies.removal(await received(request))
        if service_id:
            self.state.catalog.drop_service(node, service_id)
        elif check_id:
            self.state.catalog.drop_check(node, check_id)
        else:
            self.state.catalog.drop_node(node)
        return JSONResponse(True)

    def _nodes(self) -> Found:
        index, nodes = self.state.catalog.all_nodes()
        return Found(index, [views.node(node, self.state.datacenter) for node in nodes])

    def _catalog_service(self, request: Request) -> Found:
        index, services = self.state.catalog.instances(_name(request, "service"))
        return Found(index, [views.catalog_service(self.state, service) for service in services])

    def _health_service(self, request: Request) -> Found:
        index, services = self.state.catalog.instances(_name(request, "service"))
        shown = [views.service_health(self.state, service) for service in services]
        if request.query_params.get("passing", "0") not in {"0", "false"}:
            shown = [one for one in shown if all(check["Status"] == "passing" for check in one["Checks"])]
        return Found(index, shown)

    def _health_checks(self, request: Request) -> Found:
        index, services = self.state.catalog.instances(_name(request, "service"))
        checks = [c for s in services for c in self.state.catalog.checks_of(s) if c.service_id]
        return Found(index, [views.check(self.state, check) for check in checks])

    def _health_node(self, request: Request) -> Found:
        index, checks = self.state.catalog.node_checks(_name(request, "node"))
        return Found(index, [views.check(self.state, check) for check in checks])

    # --- KV -----------------------------------------------------------------------------------------

    def _get_key(self, request: Request) -> Found:
        key, params = request.path_params["key"], request.query_params
        if "keys" in params or "recurse" in params:
            index, entries = self.state.keys.under(key)
            if not entries:
                return Found(index, None)
            if "keys" in params:
                return Found(index, _up_to([entry.key for entry in entries], key, params.get("separator", "")))
            return Found(index, [views.entry(entry) for entry in entries])
        if not key:
            raise Refused(400, "Missing key name")
        index, entry = self.state.keys.get(key)
        if entry is None:
            return Found(index, None)
        return Found(index, entry.value if "raw" in params else [views.entry(entry)])

    async def _put_key(self, request: Request) -> Response:
        key, params = request.path_params["key"], request.query_params
        if not key:
            raise Refused(400, "Missing key name")
        if word := next((word for word in ("acquire", "release") if word in params), None):
            raise Refused(400, f"the dev agent has no sessions: leave {word} out")
        value = await received(request)
        done = self.state.keys.put(key, value, flags=_number(params, "flags") or 0, cas=_number(params, "cas"))
        return JSONResponse(done)

    async def _delete_key(self, request: Request) -> Response:
        key, params = request.path_params["key"], request.query_params
        if "recurse" in params:
            self.state.keys.delete_under(key)
            return JSONResponse(True)
        if not key:
            raise Refused(400, "Missing key name")
        return JSONResponse(self.state.keys.delete(key, cas=_number(params, "cas")))

    async def _txn(self, request: Request) -> Response:
        steps = bodies.steps(await received(request))
        entries, failed = self.state.keys.apply(steps)
        if failed:
            errors = [{"OpIndex": n, "What": why} for n, why in failed]
            return JSONResponse({"Results": None, "Errors": errors}, status_code=409)
        results = [{"KV": views.entry(entry, with_value=read)} for entry, read in entries]
        return JSONResponse({"Results": results, "Errors": None})


def _answering(handlers: Mapping[str, Handler]) -> Handler:
    async def answer(request: Request) -> Response:
        handler = handlers.get(request.method)
        if handler is None:
            allowed = ",".join(["OPTIONS", *handlers])
            return PlainTextResponse(f"method {request.method} not allowed", 405, {"Allow": allowed})
        try:
            return await handler(request)
        except Refused as refused:
            return PlainTextResponse(refused.text, refused.status)

    return answer


async def _unknown(_request: Request) -> Response:
    return Response(status_code=404)


def _name(request: Request, kind: str) -> str:
    name: str = request.path_params["name"]
    if not name:
        raise Refused(400, f"Missing {kind} name")
    return name


def _number(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise Refused(500, f"strconv.ParseUint: parsing {json.dumps(text)}: invalid syntax")
    return int(text)


def _up_to(keys: list[str], prefix: str, separator: str) -> list[Any]:
    """The keys, cut after the first separator behind the prefix, each once."""
    if not separator:
        return list(keys)
    cut: dict[str, None] = {}
    for key in keys:
        end = key.find(separator, len(prefix))
        cut[key if end < 0 else key[: end + len(separator)]] = None
    return list(cut)
