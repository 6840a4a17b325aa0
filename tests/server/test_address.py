"""Own address, instance id, the parent that holds the port, and what is found at a port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from meshsdk.config import Settings
from meshsdk.server.address import instance_id, loopback, own_address
from meshsdk.server.lifecycle import registration_of
from meshsdk.server.probe import ask, listens
from meshsdk.server.supervisor import holds_port, will_replace


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8500", "http://localhost:8500", "unix:///run/consul.sock", "http://[::1]:8500"]
)
def test_agent_on_this_machine_knows_its_address_itself(url: str) -> None:
    assert own_address(url) == ""


def test_agent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """TEST-NET-1 (RFC 5737) is routed like any other network; no packet is sent."""
    address = own_address("http://192.0.2.1:8500")
    assert address == "" or socket.inet_aton(address)
    assert own_address("http://no-such-host.invalid:8500") == ""


def test_instance_id() -> None:
    assert instance_id("shop", 8001, "web_1.example") == "shop-web-1-example-8001"
    assert instance_id("shop", 8001, "") == "shop-host-8001"


def test_registration() -> None:
    settings = Settings(
        "shop", port=8001, zone="a", version="2", meta={"team": "x", "version": "3"}, tags=("t",), ttl=9
    )
    found = registration_of(settings, "shop-h-8001", "10.0.0.1")
    assert found is not None
    assert found.meta == {"mesh": "1", "protocol": "http", "zone": "a", "version": "3", "team": "x"}
    assert (found.id, found.address, found.port, found.tags, found.ttl) == ("shop-h-8001", "10.0.0.1", 8001, ("t",), 9)
    assert registration_of(Settings("shop"), "shop-h-0", "") is None


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel does not tell")
def test_who_holds_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert holds_port(os.getpid(), port)
        assert not holds_port(1 if os.getpid() != 1 else 2, port)
        script = (
            "import os; from meshsdk.server.supervisor import will_replace\n"
            f"print(will_replace({port}, signalled=False), will_replace({port}, signalled=True))"
        )
        child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert child.stdout.split() == ["True", "False"]
    assert not holds_port(os.getpid(), port)
    assert not will_replace(port, signalled=False)


def test_system_that_does_not_tell(tmp_path: Path) -> None:
    assert not holds_port(os.getpid(), 80, tmp_path)


async def test_what_is_found_at_a_port(port: int) -> None:
    found = await ask(("127.0.0.1", "::1"), port, "/")
    assert f"127.0.0.1:{port}: nothing listens" in found
    assert not await listens(("127.0.0.1",), port)


async def test_port_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshsdk.server.probe._WAIT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "does not answer within" in await ask(("127.0.0.1",), port, "/")
        assert await listens(("127.0.0.1",), port)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "::1"),
        ("localhost", "127.0.0.1"),
        ("LocalHost.", "127.0.0.1"),
        ("", ""),
        ("10.0.0.7", ""),
        ("localhost.example", ""),
    ],
)
def test_loopback_is_known_by_address_and_by_name(address: str, found: str) -> None:
    assert loopback(address) == found
