"""Listening sockets by name, all of them or none: opened, or taken over from the process before.

They are a matter of their own so that they may live longer than what serves them: a new version takes them over,
several processes share them, and a place that is taken is known before anything else has begun.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence

from meshsdk.errors import ConfigError
from meshsdk_sidecar.place import Place

__all__ = ["Sockets", "adopt", "close", "dealt", "descriptors", "open_several", "open_sockets"]

Sockets = dict[str, list[socket.socket]]
"""One name may have several: `localhost` is an address of IPv4 and one of IPv6."""

BACKLOG = 2048
"""Connections that wait to be accepted; the system's `net.core.somaxconn` (4096 on Linux) bounds it."""

_PRIVATE = 0o177
"""Taken off a unix socket's mode: who may connect may change everything, so it is its owner's."""


def open_sockets(
    places: Mapping[str, Place], *, spread: bool = False, held: list[socket.socket] | None = None
) -> Sockets:
    """Listen at every place.

    Args:
        places: by the name of the section that says where, such as `outbound`.
        spread: let other processes listen at the same places, the system spreading connections (SO_REUSEPORT).
        held: sockets of the process before, whatever they were called there; those that listen at one of the places are
            taken out and used, any other is left in it.

    Raises:
        ConfigError: with a line for every place where that cannot be, saying what to write instead; none is open then.
    """
    found: Sockets = {}
    mistakes: list[str] = []
    for name, place in places.items():
        try:
            found[name] = _listen(place, [] if held is None else held, spread=spread)
        except OSError as error:
            mistakes.append(f"cannot listen at {place}: {_reason(error)}; {_remedy(name, place, error)}")
    if mistakes:
        close(found)
        raise ConfigError("\n".join(mistakes))
    return found


def open_several(places: Mapping[str, Place], count: int, *, held: list[socket.socket] | None = None) -> Sockets:
    """Listen at every place, `count` times, for as many processes; held sockets stay as they are. As `open_sockets`.

    The system would share a place between all processes of a user that ask for it, whoever they are: so each is opened
    for ourselves alone first.
    """
    before = set(held or ())
    found = open_sockets(places, held=held)
    fresh = {name: places[name] for name, each in found.items() if before.isdisjoint(each)}
    close({name: found[name] for name in fresh})
    found |= {name: [] for name in fresh}
    for _ in range(count):
        try:
            more = open_sockets(fresh, spread=True)
        except ConfigError:
            close(found)
            raise
        for name, each in more.items():
            found[name] += each
    return found


def dealt(sockets: Sockets, count: int) -> list[Sockets]:
    """The sockets of each of several processes: each is somebody's, and each process has one at each place, if need be
    the same as another.
    """
    hands: list[Sockets] = [{} for _ in range(count)]
    for name, each in sockets.items():
        alike: dict[str, list[socket.socket]] = {}
        for one in each:
            alike.setdefault(str(one.getsockname()), []).append(one)
        for same in alike.values():
            for number in range(max(count, len(same))):
                hands[number % count].setdefault(name, []).append(same[number % len(same)])
    return hands


def close(sockets: Mapping[str, Iterable[socket.socket]]) -> None:
    """Close them; the file of a unix socket stays, as the next process may hold the same socket."""
    for each in sockets.values():
        for one in each:
            one.close()


def descriptors(sockets: Sockets) -> dict[str, list[int]]:
    """The numbers of the sockets, made to outlive an exec: what `adopt` takes in the next process."""
    for each in sockets.values():
        for one in each:
            one.set_inheritable(True)
    return {name: [one.fileno() for one in each] for name, each in sockets.items()}


def adopt(numbers: Mapping[str, Sequence[int]]) -> Sockets:
    """Sockets of descriptors that this process was started with, or was sent.

    Raises:
        OSError: one of them is no socket.
    """
    found = {name: [socket.socket(fileno=number) for number in each] for name, each in numbers.items()}
    for each in found.values():
        for one in each:
            one.setblocking(False)
            one.set_inheritable(False)
    return found


def _listen(place: Place, held: list[socket.socket], *, spread: bool) -> list[socket.socket]:
    """Listen at each address of a place, by what is held where it is there; that is held no more then."""
    if place.socket:
        return _taken(held, socket.AF_UNIX, place.socket) or [_listen_unix(place.socket)]
    made: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in _addresses(place):
        if taken := _taken(held, family, address):
            made += taken
            continue
        try:
            made.append(_listen_tcp(family, address, spread=spread))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                close({"": made})
                raise
            absent = error  # `localhost` has an address of IPv6 where the machine has no IPv6
    if absent is not None and not made:
        raise absent
    return made


def _taken(held: list[socket.socket], family: int, address: str | tuple[str, int]) -> list[socket.socket]:
    """What listens at an address, which is held no more."""
    found = [one for one in held if (one.family, _address(one)) == (family, address)]
    held[:] = [one for one in held if one not in found]
    return found


def _address(one: socket.socket) -> str | tuple[str, int]:
    name = one.getsockname()
    return name if isinstance(name, str) else name[:2]


def _listen_tcp(family: int, address: tuple[str, int], *, spread: bool) -> socket.socket:
    one = socket.create_server(address, family=family, backlog=BACKLOG, reuse_port=spread)
    # Connections inherit it on Linux. asyncio sets it only where the protocol was named, as it is not here, and the
    # answers of a kept connection would wait up to 40 ms for an acknowledgement that is delayed.
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.setblocking(False)
    return one


def _addresses(place: Place) -> list[tuple[int, tuple[str, int]]]:
    # As bytes: of a str, Python would load the tables for international names, 0.7 MB.
    host = place.address.encode() if place.address.isascii() else place.address
    found = socket.getaddrinfo(host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((int(family), (str(address[0]), int(address[1]))) for family, _, _, _, address in found))


def _listen_unix(path: str) -> socket.socket:
    _clear(path)
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_PRIVATE)
    try:
        one.bind(path)
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    finally:
        os.umask(before)
    one.setblocking(False)
    return one


def _clear(path: str) -> None:
    """Remove the file of a socket that nobody listens at: a process that was killed leaves it."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _reason(error: OSError) -> str:
    """The system's word for it: `create_server` adds the address once more."""
    if isinstance(error, socket.gaierror) or not error.errno or error.errno == errno.EEXIST:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _remedy(name: str, place: Place, error: OSError) -> str:
    upstream = name.removeprefix("upstreams.")
    said = f"{name.partition('[')[0]}." if upstream == name else f"the upstream {upstream}'s "
    if place.socket:
        return f"write another {said}socket, or end what listens there"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"write an address of this machine as {said}address"
    if error.errno == errno.EACCES:
        return f"write a {said}port above 1023, or allow this process low ports (CAP_NET_BIND_SERVICE)"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "allow this process more files (ulimit -n, LimitNOFILE)"
    return f"write another {said}port or {said}address, or end what listens there"
