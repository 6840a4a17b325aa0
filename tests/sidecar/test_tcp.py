"""TCP through the mesh over real sockets, on both loops: what is carried, how it ends, who is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from meshsdk.core.access import Access, Rule
from meshsdk.core.tokens import Issuer, Jwt
from meshsdk.errors import UnknownService
from meshsdk.telemetry.catalogue import GAUGES
from tests.real_consul import free_ports
from tests.sidecar.tcp_ends import (
    LOOPS,
    OTHER_CA,
    App,
    Inbound,
    Outbound,
    ask,
    at,
    echo,
    listening,
    plan,
    refused,
    showing,
    until,
)

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=LOOPS)
def run(request: Any) -> Run:
    return LOOPS[request.param]


@pytest.fixture(autouse=True)
def nothing_raised_in_callbacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is reported twice to an exchange raises, in a callback, which the loop logs."""
    yield
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelname == "ERROR"]
    assert errors == []


def test_there_and_back_in_clear(run: Run) -> None:
    async def scene() -> None:
        async with App(echo).at() as app:
            out = Outbound(app)
            async with listening(out.carrier.protocol) as port:
                data = bytes(range(256)) * 10_000
                assert await ask(port, data) == data
            (ended,) = await out.over()
            assert (ended.status, ended.flag, ended.call.method, ended.reason) == (200, "", "TCP", "answered")
            assert ended.head_seconds is not None
            told = {reading.name: reading for reading in out.carrier.readings()}
            assert told["mesh.tcp.sent"].value == told["mesh.tcp.received"].value == len(data)
            assert told["mesh.tcp.connections"].value == 0
            for name, reading in told.items():
                assert len(reading.labels) == len(GAUGES[name].labels)

    run(scene())


@pytest.mark.parametrize("unix", [False, True])
def test_there_and_back_over_mutual_tls(run: Run, unix: bool, tmp_path: Any) -> None:
    """Through both sidecars, half-closed at once by a client that has said all: the answer is whole."""

    async def scene() -> None:
        async with App(echo).at(str(tmp_path / "app.sock") if unix else "") as app:
            into = Inbound(app, plan=plan())
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    data = bytes(range(256)) * 10_000
                    assert await asyncio.gather(ask(port, data), ask(port, b"x"), ask(port)) == [data, b"x", b""]
                assert {(event.status, event.flag) for event in await out.over(3)} == {(200, "")}
                ended = await into.over(3)
        assert {(event.status, event.flag, event.method) for event in ended} == {(200, "", "TCP")}
        assert all(event.peer.endswith("/svc/web") and event.client == "127.0.0.1" for event in ended)

    run(scene())


@pytest.mark.parametrize("secured", [False, True])
def test_an_app_that_speaks_first_and_ends_first(run: Run, secured: bool) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.write_eof()
        heard = await reader.read()
        assert heard == b"thanks"

    async def scene() -> None:
        async with App(greet).at() as app:
            into = Inbound(app, secured=secured)
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), **({"secure": showing("web")} if secured else {}))
                async with listening(out.carrier.protocol) as port:
                    for _ in range(20):
                        reader, writer = await asyncio.open_connection("127.0.0.1", port)
                        async with asyncio.timeout(5):
                            assert await reader.read() == b"220 hello\r\n"
                        writer.write(b"thanks")
                        writer.write_eof()
                        await until(lambda: out.carrier.idle)
                        writer.close()
                assert {event.flag for event in await out.over(20)} == {""}
                assert {event.flag for event in await into.over(20)} == {""}

    run(scene())


def test_a_caller_in_clear_text_that_waits_for_the_app_to_speak(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshsdk_sidecar.proxy.tcp_inbound.FIRST_BYTE", 0.05)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")

    async def scene() -> None:
        async with App(greet).at() as app:
            into = Inbound(app)
            async with listening(into.carrier.protocol) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                async with asyncio.timeout(5):
                    assert await reader.read() == b"220 hello\r\n"
                writer.close()
                (ended,) = await into.over()
        assert (ended.peer, ended.status) == ("", 200)

    run(scene())


def test_one_that_never_reads_fills_bounded_buffers_and_no_more(run: Run) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    sent = 0

    async def scene() -> None:
        async with App(flood).at() as app:
            into = Inbound(app)
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
                    before = -1
                    while sent != before:
                        before = sent
                        await asyncio.sleep(0.3)
                    for inside in (out.carrier, into.carrier):
                        (carried,) = inside._open
                        assert 0 < carried.tunnel._waiting() < 1024 * 1024
                    writer.transport.abort()
                    (ended,) = await out.over()
                    assert ended.flag == "DC"
                    assert [event.flag for event in await into.over()] == ["DC"]

    run(scene())


def test_a_refused_instance_is_passed_over(run: Run) -> None:
    async def scene() -> None:
        async with App(echo).at() as app:
            out = Outbound(at(free_ports(1)[0]), app)
            async with listening(out.carrier.protocol) as port:
                for _ in range(4):
                    assert await ask(port, b"ping") == b"ping"
            ended = await out.over(4)
        assert {event.flag for event in ended} == {""}
        assert any(event.attempts == 2 for event in ended)
        assert [event.outcome for event in out.tries()].count("connect-failure") >= 1

    run(scene())


def test_no_instance_at_all_is_a_reset_with_words(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        out = Outbound()
        async with listening(out.carrier.protocol) as port:
            assert await refused(port)
        (ended,) = await out.over()
        assert ended.flag == "UH"

    run(scene())
    assert "no instance is registered" in caplog.text


def test_every_instance_refusing_is_told_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        out = Outbound(*(at(port) for port in free_ports(2)))
        async with listening(out.carrier.protocol) as port:
            assert await refused(port)
        (ended,) = await out.over()
        assert (ended.flag, ended.attempts, ended.reason) == ("UF", 3, "attempts-used")

    run(scene())
    assert "Connection refused" in caplog.text


def test_the_limit_of_requests_counts_connections(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with App(echo).at() as app:
            out = Outbound(app, plan=plan(limits={"max_requests": 1}))
            async with listening(out.carrier.protocol) as port:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                await until(lambda: out.cluster.in_flight == 1)
                assert next(out.carrier.readings()).value == 1
                assert await refused(port)
                assert [event.flag for event in out.ended()] == ["UO"]
                writer.close()
                await out.over(2)
                assert await ask(port, b"again") == b"again"

    run(scene())
    assert "limits.max_requests is 1" in caplog.text


def test_the_limit_of_connections_makes_others_wait(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            out = Outbound(endpoint, plan=plan(limits={"max_connections_per_endpoint": 1}))
            async with listening(out.carrier.protocol) as port:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                await until(lambda: app.seen == 1)
                second = asyncio.ensure_future(ask(port, b"second"))
                third = asyncio.ensure_future(ask(port, b"third"))
                await until(lambda: out.cluster.in_flight == 3)
                assert app.seen == 1
                writer.close()
                assert await asyncio.gather(second, third) == [b"second", b"third"]
                await out.over(3)
                assert app.seen == 3

    run(scene())


def test_waiting_for_a_connection_is_bounded(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            sections = {"limits": {"max_connections_per_endpoint": 1}, "timeouts": {"attempt": 0.1}}
            out = Outbound(endpoint, plan=plan(**sections, retries={"attempts": 1}))
            async with listening(out.carrier.protocol) as port:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                await until(lambda: app.seen == 1)
                assert await refused(port)
                assert out.cluster.in_flight == 1
                writer.close()
                await out.over(2)
                assert await ask(port, b"again") == b"again"

    run(scene())


def test_silence_ends_it(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            out = Outbound(endpoint, plan=plan(timeouts={"idle": 0.2}))
            async with listening(out.carrier.protocol) as port:
                assert await refused(port)
            (ended,) = await out.over()
            assert ended.flag == ""
            await until(lambda: app.open == 0)

    run(scene())


@pytest.mark.parametrize("who", ["client", "app"])
def test_a_break_is_handed_on_and_blamed_on_who_broke(run: Run, who: str) -> None:
    async def scene() -> None:
        ends: list[Any] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.read(5) == b"hello"
            writer.write(b"half of it")
            await writer.drain()
            if who == "app":
                writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
            try:
                await reader.read()
            except ConnectionError as error:
                ends.append(error)

        app = App(talk)
        async with app.at() as endpoint:
            into = Inbound(endpoint)
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"hello")
                    if who == "client":
                        assert await reader.readexactly(10) == b"half of it"
                        writer.transport.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
                        writer.transport.abort()
                        await until(lambda: ends)
                    else:
                        with pytest.raises(ConnectionError):
                            await reader.read()
                        writer.close()
                    (outer,), (inner_,) = await out.over(), await into.over()
        assert (outer.flag, inner_.flag) == (("DC", "DC") if who == "client" else ("UC", "UC"))

    run(scene())


DENIED = {
    "a deny rule": Access("allow", (Rule("no web", "deny", ("web",)),)),
    "a deny rule about paths": Access("allow", (Rule("no admin", "deny", ("web",), (), ("/admin/*",)),)),
    "a deny rule about methods": Access("allow", (Rule("no delete", "deny", (), ("DELETE",)),)),
    "an allow rule about paths": Access("allow", (Rule("all paths", "allow", ("web",), (), ("/*",)),)),
    "an allow rule about methods": Access("allow", (Rule("TCP", "allow", ("web",), ("TCP",)),)),
    "an allow rule for others": Access("allow", (Rule("orders", "allow", ("orders",)),)),
}


@pytest.mark.parametrize("access", DENIED.values(), ids=DENIED)
def test_a_caller_who_may_not(run: Run, access: Access, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            into = Inbound(endpoint, plan=replace(plan(), access=access))
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    assert await refused(port)
                    (ended,) = await into.over()
                    await out.over()
            assert app.seen == 0
        assert (ended.flag, ended.status, ended.refused) == ("UAEX", 403, True)
        assert ended.rule
        assert ended.peer.endswith("/svc/web")

    run(scene())
    assert "a connection to db is refused" in caplog.text
    assert "svc/web" in caplog.text


def test_a_caller_who_may(run: Run) -> None:
    access = Access("deny", (Rule("web", "allow", ("web",)), Rule("no orders", "deny", ("orders",), ("GET",))))

    async def scene() -> None:
        async with App(echo).at() as endpoint:
            into = Inbound(endpoint, plan=replace(plan(), access=access))
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    assert await ask(port, b"ping") == b"ping"
                await out.over()
                await into.over()

    run(scene())


@pytest.mark.parametrize("tls", ["strict", "permissive"])
def test_clear_text_where_the_policy_says_so(run: Run, tls: str) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            into = Inbound(endpoint, plan=replace(plan(), tls=tls))
            async with listening(into.carrier.protocol) as port:
                if tls == "strict":
                    assert await refused(port)
                else:
                    assert await ask(port, b"ping") == b"ping"
                (ended,) = await into.over()
        assert (ended.status, ended.flag, ended.rule) == (
            (403, "UAEX", "tls.mode") if tls == "strict" else (200, "", "")
        )
        assert app.seen == (tls != "strict")

    run(scene())


def test_another_service_in_its_place_hears_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(filter(None, [await reader.read(100)]))

    async def scene() -> None:
        app = App(listen)
        async with app.at() as endpoint:
            into = Inbound(endpoint, service="orders")
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    assert await refused(port, b"secret")
                (ended,) = await out.over()
                await until(lambda: into.carrier.idle and not into.carrier.unfinished)
            assert heard == []
            assert (ended.flag, ended.attempts) == ("UF", 3)

    run(scene())
    assert "it should be service db" in caplog.text


def test_a_caller_of_another_authority(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            into = Inbound(endpoint)
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web", ca=OTHER_CA))
                async with listening(out.carrier.protocol) as port:
                    assert await refused(port)
                await out.over()
                await until(lambda: not into.carrier.unfinished)
            assert app.seen == 0
            assert into.ended() == []

    run(scene())


def test_an_app_that_is_not_there(run: Run) -> None:
    async def scene() -> None:
        into = Inbound(at(free_ports(1)[0]))
        async with listening(into.carrier.protocol) as inner:
            out = Outbound(at(inner), secure=showing("web"))
            async with listening(out.carrier.protocol) as port:
                assert await refused(port)
            await out.over()
            (ended,) = await into.over()
        assert (ended.status, ended.flag) == (503, "UF")

    run(scene())


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30])
@pytest.mark.parametrize("how", ["client", "abort", "inner abort"])
def test_broken_off_at_any_moment_everything_ends_once(run: Run, how: str, turns: int) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            into = Inbound(endpoint)
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"), plan=plan(retries={"attempts": 1}))
                async with listening(out.carrier.protocol) as port:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(b"hello")
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    if how == "client":
                        writer.transport.abort()
                    (into if how == "inner abort" else out).carrier.abort()
                    with contextlib.suppress(ConnectionError, TimeoutError):
                        async with asyncio.timeout(0.05):
                            await reader.read(1)
                    writer.transport.abort()
                    await until(lambda: out.carrier.idle and into.carrier.idle and not into.carrier.unfinished)
                    await asyncio.sleep(0.02)
                    assert out.carrier.idle
                    assert out.cluster.in_flight == into.cluster.in_flight == into.intake.in_flight == 0
                    assert len(out.ended()) <= 1
                    await until(lambda: app.open == 0)
                    assert not out.watch._waits
                    assert not into.watch._waits

    run(scene())


def test_a_service_that_wants_tokens_takes_no_connection_without_one(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            wants = Jwt((Issuer("https://issuer", "/keys", ("db",)),), required=True, paths=("/admin/*",))
            into = Inbound(endpoint, plan=replace(plan(), jwt=wants))
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    assert await refused(port)
                (ended,) = await into.over()
                await out.over()
        assert (ended.flag, ended.rule, app.seen) == ("UAEX", "authentication.jwt.missing", 0)

    run(scene())


def test_closing_waits_for_what_is_open_and_then_breaks_it_off(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            out = Outbound(endpoint)
            async with listening(out.carrier.protocol) as port:
                first, second = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
                await until(lambda: app.seen == 2)
                closing = asyncio.ensure_future(out.carrier.close(0.3))
                first[1].close()
                await until(lambda: out.carrier.in_flight == 1)
                assert not closing.done()
                await closing
                assert out.carrier.idle
                with pytest.raises(ConnectionError):
                    await second[0].read()
                second[1].close()
                assert sorted(event.flag for event in await out.over(2)) == ["", "DC"]
            await until(lambda: app.open == 0)

    run(scene())


def test_a_service_nobody_knows(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        out = Outbound()

        async def unknown() -> Any:
            raise UnknownService("Consul cannot be asked", service="db")

        told: list[tuple[str, str]] = []
        out.carrier.cluster = unknown
        out.carrier.refused = lambda reason, why: told.append((reason, why))
        async with listening(out.carrier.protocol) as port:
            assert await refused(port)
        await until(lambda: out.carrier.idle)
        ((reason, why),) = told
        assert reason == "UnknownService"
        assert "Consul cannot be asked" in why

    run(scene())


def test_the_way_in_is_limited_too(run: Run) -> None:
    async def scene() -> None:
        app = App(echo)
        async with app.at() as endpoint:
            into = Inbound(endpoint, plan=plan(limits={"max_requests": 1}))
            async with listening(into.carrier.protocol) as inner:
                out = Outbound(at(inner), secure=showing("web"))
                async with listening(out.carrier.protocol) as port:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    await until(lambda: app.seen == 1)
                    assert await refused(port)
                    assert [(event.flag, event.status, event.refused) for event in into.ended()] == [("UO", 503, False)]
                    writer.close()
                    await out.over(2)
                    await into.over(2)

    run(scene())
