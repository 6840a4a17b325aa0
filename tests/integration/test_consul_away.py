"""Consul absent, gone for a while, hanging or talking nonsense: known services are called, unknown ones fail soon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from meshsdk import Mesh
from meshsdk.errors import CallError, UnknownService
from tests.integration.moody import Moody
from tests.integration.programs import ConsulView, Site, until
from tests.real_consul import RealConsul

Serve = Callable[..., Site]
Make = Callable[..., Mesh]

SOON = 0.5


def refused(http: httpx.Client, service: str, *words: str) -> None:
    """A call to an unknown service fails within the time set and a little, and says why."""
    began = time.monotonic()
    with pytest.raises(UnknownService) as raised:
        http.get(f"http://{service}/")
    assert time.monotonic() - began < SOON + 0.3
    for word in words:
        assert word in str(raised.value), raised.value
    assert isinstance(raised.value, httpx.TransportError)


def test_absent_at_the_start(make_mesh: Make, consul: ConsulView, site: Serve, service: str, tmp_path: Path) -> None:
    """Without a memory the call fails soon; with that of an earlier run it arrives, under the policy of then."""
    consul.policy(service, "{version: 1, retries: {attempts: 2}}")
    consul.add(service, site(PlainTextResponse("known")).port)
    with (
        Moody(consul.url).running() as before,  # what is remembered belongs to an address of Consul
        Mesh("caller", consul_url=before.url, state_dir=tmp_path / "memory") as earlier,
        earlier.client() as http,
    ):
        assert http.get(f"http://{service}/").text == "known"
        (status,) = earlier.status()
    version, url = status.policy, before.url

    with make_mesh(url, first_wait=SOON, state_dir=tmp_path / "none").client() as http:
        refused(http, service, url.removeprefix("http://"), "nobody accepts connections")
        refused(http, service, url.removeprefix("http://"))

    later = make_mesh(url, first_wait=SOON, state_dir=tmp_path / "memory")
    with later.client() as http:
        began = time.monotonic()
        assert http.get(f"http://{service}/").text == "known"
        assert time.monotonic() - began < SOON + 0.3
    (status,) = later.status()
    assert (status.source, status.connected, status.policy) == ("disk", False, version)


@pytest.mark.parametrize("how", ["stopped", "hanging"])
def test_gone_for_a_while(make_mesh: Make, own_consul: RealConsul, site: Serve, service: str, how: str) -> None:
    consul = ConsulView(own_consul.url)
    consul.add(service, site(PlainTextResponse("known")).port)
    mesh = make_mesh(own_consul.url, first_wait=SOON)
    with mesh.client() as http:
        assert http.get(f"http://{service}/").text == "known"
        process = own_consul._process
        assert process is not None
        if how == "stopped":
            own_consul.stop()
        else:
            os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        while time.monotonic() - began < 3.0:
            assert http.get(f"http://{service}/").text == "known"
            time.sleep(0.05)
        refused(http, f"{service}-x", own_consul.url.removeprefix("http://"))
        if how == "stopped":
            (status, _) = mesh.status()
            assert not status.connected
            assert status.age > 1
            own_consul.start()
            consul.add(service, site(PlainTextResponse("new")).port)
        else:
            os.kill(process.pid, signal.SIGCONT)
        until(lambda: all(s.connected for s in mesh.status()), 12, mesh.status)
        assert http.get(f"http://{service}/").text in {"known", "new"}


@pytest.mark.parametrize("mood", ["garbage", "403", "500", "hanging"])
def test_nonsense(make_mesh: Make, consul: ConsulView, site: Serve, service: str, mood: str) -> None:
    """What was last known stays, an unknown service fails soon, and a change is seen once Consul is well again."""
    consul.add(service, site(PlainTextResponse("known")).port)
    consul.policy(service, "{version: 1, retries: {attempts: 2}}")
    with Moody(consul.url).running() as moody:
        mesh = make_mesh(moody.url, first_wait=SOON)
        with mesh.client() as http:
            assert http.get(f"http://{service}/").text == "known"
            (status,) = mesh.status()
            version = status.policy
            moody.mood = mood
            until(lambda: moody.asked >= 2, 5, lambda: moody.asked)
            if mood != "hanging":
                until(lambda: not mesh.status()[0].connected, 5, mesh.status)
            for _ in range(10):
                assert http.get(f"http://{service}/").text == "known"
            refused(http, f"{service}-x", moody.url.removeprefix("http://"))
            assert mesh.status()[0].policy == version
            moody.mood = "fine"
            consul.policy(service, "{version: 1, retries: {attempts: 1}}")
            if mood != "hanging":  # what hangs is given up only after the longest wait that was asked for
                until(lambda: mesh.status()[0].connected, 12, mesh.status)
                until(lambda: mesh.status()[0].policy not in {version, "defaults"}, 5, mesh.status)
                until(lambda: answers(http, f"{service}-x") == "NoEndpoint", 12)


def answers(http: httpx.Client, service: str) -> str:
    try:
        return http.get(f"http://{service}/").text
    except CallError as error:
        return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "meshsdk.errors")
