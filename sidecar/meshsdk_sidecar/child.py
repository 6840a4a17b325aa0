"""The app as a child of the sidecar: `meshsdk sidecar -c FILE --exec -- node app.js`.

Rule 1  Its exit code is the sidecar's: whoever restarts apps (systemd, a container platform) goes on doing so. It is
        not restarted here.
Rule 2  It runs in a process group of its own, so that Ctrl-C in a terminal reaches the sidecar alone, which drains
        first and then tells it to end.
Rule 3  Nothing of it outlives the sidecar: on Linux the system kills it with us, whatever ends us; what it leaves of
        its group when it ends is killed.
Rule 4  No zombies: its own end is awaited, and as the first process of a container we await whatever else is handed to
        us.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from meshsdk.config import environment
from meshsdk.errors import ConfigError
from meshsdk_sidecar.allocator import without_ours

__all__ = ["Child", "adopted", "check", "exit_code", "reap"]

log = logging.getLogger("meshsdk.sidecar")

# Runs in the child's place and then becomes it. Setting PR_SET_PDEATHSIG (1) between fork and exec by `preexec_fn`
# would run Python in a fork of a process with threads, which may hang. Who lost its parent before asked too late.
_BECOME = """\
import ctypes, os, sys
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
if os.getppid() != int(parent):
    sys.exit(1)
try:
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"meshsdk sidecar: cannot start {command[0]!r}: {error.strerror}")
"""


def check(command: Sequence[str]) -> None:
    """Find the program, before anything else is begun.

    Raises:
        ConfigError: there is none.
    """
    import shutil  # 0.5 MB with what it can unpack, which a sidecar beside its app has no use for

    if not command:
        raise ConfigError("--exec: no command; write it after --, such as: --exec -- node app.js")
    if shutil.which(command[0]) is None:
        raise ConfigError(f"--exec: {command[0]!r} is no program that is found here; write its path, or correct PATH")


def exit_code(returned: int) -> int:
    """What a shell says of an end: 128 and the number of the signal, where one ended it."""
    return 128 - returned if returned < 0 else returned


class Child:
    """One process, started when made; in the main thread, which must live as long as the process does.

    Args:
        command: the program and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone = asyncio.Event()
        self._process = subprocess.Popen(_wrapped(command), process_group=0, env=without_ours(environment()))
        log.info("%s started as process %d", command[0], self.pid)
        threading.Thread(target=self._await_end, name="meshsdk-child", daemon=True).start()
        if adopted():
            threading.Thread(target=reap, args=(self.pid,), name="meshsdk-reaper", daemon=True).start()

    def __repr__(self) -> str:
        return f"<Child {self.pid} {'running' if self.code is None else f'ended with {self.code}'}>"

    @property
    def pid(self) -> int:
        """Its number, which is also that of its group."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, as a shell says it; None while it runs."""
        return None if self._process.returncode is None else exit_code(self._process.returncode)

    def terminate(self) -> None:
        """Tell it to end; what it started is its own to tell."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    async def end(self, seconds: float) -> int:
        """Tell it to end, kill it after so many seconds, and return its exit code."""
        self.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self.gone.wait()
        except TimeoutError:
            log.warning("process %d has not ended within %g s of SIGTERM and is killed", self.pid, seconds)
            self.kill()
            await self.gone.wait()
        code = self.code
        assert code is not None  # it is gone
        return code

    def kill(self) -> None:
        """Kill it, with all that is left of its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _await_end(self) -> None:
        """In a thread of its own: what it leaves is killed while its number still is its own, and nobody else's."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.kill()
        self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended before it
            self._loop.call_soon_threadsafe(self.gone.set)


def _wrapped(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), *command]


def adopted() -> bool:
    """Whether children of others are handed to us when their parents end: we are the first process of a container."""
    return os.getpid() == 1


def reap(own: int) -> None:
    """Await whatever was handed to us and ends, until our own child has ended, which is awaited elsewhere.

    In a thread, as uvloop keeps SIGCHLD for itself.

    Args:
        own: its number.
    """
    while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) is not None and found.si_pid != own:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, 0)
