"""The served side of one Mesh: adapters, pages and the process's life, put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from meshsdk.config import Settings
from meshsdk.core.plan import Plan
from meshsdk.discovery.background import Background
from meshsdk.server.address import instance_id, own_address
from meshsdk.server.announce import obeyed
from meshsdk.server.answers import Answer
from meshsdk.server.asgi import ASGIApp, MeshASGI
from meshsdk.server.beginning import Beginning
from meshsdk.server.entrance import Certificate, Entrance
from meshsdk.server.guard import Guard
from meshsdk.server.inbound import Intake, Page, RequestSink
from meshsdk.server.instrument import instrument
from meshsdk.server.lifecycle import ConsulFactory, Lifecycle, Phase, registration_of
from meshsdk.server.scrape import MetricsPort, Scrape
from meshsdk.server.who import Who
from meshsdk.server.workers import SERVING, Workers
from meshsdk.server.wsgi import MeshWSGI, WSGIApp
from meshsdk.telemetry.metrics import Metrics
from meshsdk.telemetry.tracing import Tracing

__all__ = ["Server"]


def _guard(plan: Callable[[], Plan], who: Who) -> Guard:
    return Guard(plan, intentions=who.intentions, trust_domain=who.trust_domain, tokens=who.tokens)


class Server:
    """The served side of one process.

    Args:
        settings: service, port, address, zone, version, meta, tags, ttl, drain_wait, runtime_dir, and the paths and
            port of the pages.
        background: the thread and loop for all work beside requests.
        consul: makes a client of Consul; called on that loop, once in each process that serves.
        policy_versions: what the health check says, by service, such as `{"payments": "payments@41"}`.
        metrics: this process's counts, shown on the metrics page.
        sink: told of every request; metrics and access log are among its listeners.
        tracing: begins spans.
        plan: the policy in force for this service; None knows of none, and restricts nothing.
        identity: this process's certificate; None takes and lets in clear text only.
        who: what rules are read with.
        clock: `time.monotonic` or one that agrees with it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        background: Background,
        consul: ConsulFactory,
        policy_versions: Callable[[], Mapping[str, str]],
        metrics: Metrics,
        sink: RequestSink,
        tracing: Tracing,
        plan: Callable[[], Plan] | None = None,
        identity: Certificate | None = None,
        who: Who | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._background = background
        instance = instance_id(settings.service, settings.port or 0)
        self._workers = Workers(settings.runtime_dir, instance, self._answers())
        self._scrape = Scrape(metrics, self._workers)
        who = who or Who()
        guard = None if plan is None else _guard(plan, who)
        sources = () if guard is None else who.sources
        self.beginning = Beginning(settings.service, settings.first_wait, sources, keys=guard, clock=clock)
        self.entrance = Entrance(
            settings,
            identity=identity,
            mode=(lambda: "permissive") if guard is None else lambda: guard.mode,
            known=self.beginning.await_over,
            alone=lambda: self._workers.alone,
        )
        self.lifecycle = Lifecycle(
            registration_of(settings, instance, settings.address or own_address(settings.consul_url)),
            background=background,
            consul=consul,
            workers=self._workers,
            entrance=self.entrance,
            output=lambda: obeyed(policy_versions()),
            beside=self._metrics_port(),
            legacy=self._scrape.own,
            probe_path=settings.ready_path or _PROBE_PATH,
            in_flight=lambda: self.intake.in_flight,
            drain_wait=settings.drain_wait,
            drain_timeout=settings.drain_timeout,
        )
        self.intake = Intake(
            clock=clock,
            tracing=tracing,
            sink=sink,
            pages=self._pages(),
            seen=self.lifecycle.seen,
            closing=lambda: self.lifecycle.phase in {Phase.DRAINING, Phase.STOPPED},
            access_log=(lambda: "off") if plan is None else lambda: plan().access_log,
            guard=guard,
            explain=settings.explain_denials,
            own_id=who.own_id if settings.forward_client_cert else None,
        )

    @property
    def in_flight(self) -> int:
        """Requests being served now."""
        return self.intake.in_flight

    @property
    def phase(self) -> str:
        """`starting`, `opening` (the mesh's callers cannot come in yet), `ready`, `draining` or `stopped`."""
        phase = self.lifecycle.phase
        return _OPENING if phase is Phase.READY and not self.lifecycle.reachable else phase.value

    def asgi(self, app: ASGIApp) -> MeshASGI:
        """Put the mesh around an ASGI application."""
        if isinstance(app, MeshASGI):
            return app
        self.lifecycle.attach(signals=False)
        return MeshASGI(app, self.intake, self.lifecycle, self.entrance, self.beginning)

    def wsgi(self, app: WSGIApp) -> MeshWSGI:
        """Put the mesh around a WSGI application."""
        if isinstance(app, MeshWSGI):
            return app
        self.lifecycle.attach(signals=True)
        return MeshWSGI(app, self.intake, self.beginning)

    def instrument(self, app: Any) -> None:
        """Put the mesh around a FastAPI, Starlette or Flask application, in place; a second time changes nothing.

        Raises:
            TypeError: it is none of them; says what to use instead.
        """
        instrument(app, asgi=self.asgi, wsgi=self.wsgi)
        # Starlette builds its middleware at the first request; a port has to be looked for before that.
        self.lifecycle.attach(signals=False)

    def close(self) -> None:
        """Leave Consul now; waits for it, at most two seconds."""
        self.lifecycle.close()

    async def aclose(self) -> None:
        """Leave Consul now; waits for it, at most two seconds."""
        await self.lifecycle.aclose()

    def _pages(self) -> dict[str, Page]:
        settings = self._settings
        pages: dict[str, Page] = {settings.ready_path or _PROBE_PATH: self._ready}
        if settings.metrics_path is not None:
            pages[settings.metrics_path] = lambda: self._background.submit(self._scrape.answer)
        return pages

    def _ready(self) -> Answer:
        phase = self.phase
        return Answer(200 if phase == Phase.READY else 503, f"{phase}\n".encode())

    def _answers(self) -> dict[str, Callable[[str], str]]:
        return {"state": self._state, "metrics": lambda _: self._scrape.own(), "inherit": self._inherit}

    def _state(self, _: str) -> str:
        return SERVING if self.lifecycle.phase is Phase.READY else self.lifecycle.phase.value

    def _inherit(self, text: str) -> str:
        self._scrape.inherit(text)
        return "kept"

    def _metrics_port(self) -> MetricsPort | None:
        settings = self._settings
        if settings.metrics_port is None:
            return None
        return MetricsPort(settings.metrics_host, settings.metrics_port, settings.metrics_path, self._scrape.answer)


_OPENING = "opening"

# Where the ready page is turned off, the process still has to ask its own port something that no application answers.
_PROBE_PATH = "/-/mesh/probe"
