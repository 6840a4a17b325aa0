"""Transports without sockets, and time that goes on when told: what a tunnel sees of a loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from meshsdk.wire.aio.watch import Watch


class World:
    """A loop's turns and its timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: deque[Callable[[], None]] = deque()
        self._timers: list[_Timer] = []
        self.watch = Watch(self, self.clock)  # type: ignore[arg-type]

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(self, self.now + delay, callback)
        self._timers.append(timer)
        return timer

    def run(self) -> None:
        """Turns until nothing is left to do at this moment."""
        while self.soon:
            self.soon.popleft()()

    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        self.run()
        while due := [timer for timer in self._timers if timer.when <= end]:
            timer = min(due, key=lambda timer: timer.when)
            self._timers.remove(timer)
            self.now = max(self.now, timer.when)
            timer.callback()
            self.run()
        self.now = end


class _Timer:
    def __init__(self, world: World, when: float, callback: Callable[[], None]) -> None:
        self.world, self.when, self.callback = world, when, callback

    def cancel(self) -> None:
        self.world._timers.remove(self)


class Socket:
    """What is asked of a socket."""

    family = 2

    def __init__(self) -> None:
        self.lingers = False

    def setsockopt(self, level: int, name: int, value: bytes) -> None:
        self.lingers = True


class Transport(asyncio.Transport):
    """One connection and its peer, as asyncio has them; the peer reads by `take` and speaks by `say`.

    Attributes:
        arrived: what the peer has read.
        most: the most that ever waited for the peer.
        saw: how the peer saw it end: `eof`, `reset`, or not yet: empty.
    """

    def __init__(self, world: World, *, extra: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.world = world
        self.socket = Socket()
        self.protocol: Any = None
        self.arrived = b""
        self.saw = ""
        self.most = 0
        self.closing = self.lost = self.shut = self.paused = self.told_stuck = False
        self._extra = {"socket": self.socket, **(extra or {})}
        self._waiting = bytearray()
        self._unread: deque[bytes | None] = deque()
        self._high, self._low = 64 * 1024, 16 * 1024

    # --- the peer ---------------------------------------------------------------------------------------

    def say(self, data: bytes | None) -> None:
        """The peer sends, None for its end."""
        self._unread.append(data)
        self._deliver()

    def break_(self) -> None:
        """The peer resets."""
        self.saw = self.saw or "own"
        self._lose(ConnectionResetError(104, "reset by peer"))

    def take(self, count: int) -> None:
        """The peer reads."""
        if self.lost:
            return
        self.arrived += bytes(self._waiting[:count])
        del self._waiting[:count]
        if self.told_stuck and len(self._waiting) <= self._low:
            self.told_stuck = False
            self.protocol.resume_writing()
        self._flushed()

    # --- the loop's side --------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while self._unread and not (self.paused or self.closing or self.lost):
            data = self._unread.popleft()
            if data is not None:
                self.protocol.data_received(data)
            elif not self.protocol.eof_received():
                self.close()

    def _flushed(self) -> None:
        if self._waiting or self.lost:
            return
        if (self.shut or self.closing) and not self.saw:
            self.saw = "reset" if self.closing and self.socket.lingers else "eof"
        if self.closing:
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = self.closing = True
            self._waiting.clear()
            self.world.soon.append(lambda: self.protocol.connection_lost(error))

    # --- asyncio's interface ----------------------------------------------------------------------------

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return not self.paused and not self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.world.soon.append(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low
        self._tell_stuck()

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def _tell_stuck(self) -> None:
        if len(self._waiting) > self._high and not self.told_stuck:
            self.told_stuck = True
            self.protocol.pause_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.shut, "written after its end was told"
        assert not self.closing, "written when it was closing"
        self._waiting += data
        self.most = max(self.most, len(self._waiting))
        self._tell_stuck()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.shut = True
        self._flushed()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._unread.clear()
            self._flushed()

    def abort(self) -> None:
        if not self.lost:
            self.saw = self.saw or ("reset" if self.socket.lingers else "eof")
            self._lose(None)
