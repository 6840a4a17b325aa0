"""The app as a child: how it starts and ends, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from meshsdk.errors import ConfigError
from meshsdk_sidecar.child import Child, check, exit_code


def python(text: str) -> list[str]:
    return [sys.executable, "-u", "-c", text]


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_its_exit_code_as_a_shell_says_it():
    child = Child(python("import sys; sys.exit(5)"))
    await child.gone.wait()
    assert (child.code, await child.end(1.0)) == (5, 5)
    assert "ended with 5" in repr(child)
    assert (exit_code(0), exit_code(-signal.SIGTERM), exit_code(3)) == (0, 143, 3)


async def test_it_is_told_to_end_and_has_time_for_it(tmp_path):
    ready = tmp_path / "ready"
    text = f"""
import signal, sys, time
def end(*_):
    time.sleep(0.2); print("done", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, end)
open({str(ready)!r}, "w").close()
time.sleep(60)
"""
    child = Child(python(text))
    await until(ready.exists)
    assert await child.end(20.0) == 0


async def test_one_that_does_not_listen_is_killed_after_its_time(tmp_path):
    ready = tmp_path / "ready"
    text = (
        f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(ready)!r}, 'w'); time.sleep(60)"
    )
    child = Child(python(text))
    await until(ready.exists)
    assert await child.end(0.1) == 128 + signal.SIGKILL


async def test_what_it_leaves_behind_is_killed(tmp_path):
    note = tmp_path / "pid"
    text = f"""
import subprocess, sys
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(note)!r}, "w").write(str(left.pid))
"""
    child = Child(python(text))
    await child.gone.wait()
    left = int(note.read_text())
    await until(lambda: not alive(left))


async def test_it_is_a_group_of_its_own_and_no_zombie_is_left():
    child = Child(python("import time; time.sleep(60)"))
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    child.kill()
    await child.gone.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    child.terminate()
    child.kill()


# The first process of a container stands in: PR_SET_CHILD_SUBREAPER (36) hands it what loses its parent.
FIRST = """
import asyncio, ctypes, sys
import uvloop
from meshsdk_sidecar import child
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
child.adopted = lambda: True
APP = '''
import os, time
if not os.fork():
    if not os.fork():
        os.setsid(); time.sleep(0.3); os._exit(0)
    os._exit(0)
os.wait()
time.sleep(1.0)
print(open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split(), os.getpid(), flush=True)
raise SystemExit(4)
'''
async def main():
    app = child.Child([sys.executable, "-S", "-c", APP])
    await app.gone.wait()
    return app.code
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    sys.exit(runner.run(main()))
"""


def test_a_first_process_awaits_what_is_handed_to_it_and_leaves_its_own():
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 4, done.stderr
    children, app = done.stdout.rsplit(maxsplit=1)
    assert children == f"['{app}']", "the app's orphan is no zombie of ours"


def test_a_command_that_cannot_be():
    with pytest.raises(ConfigError, match="'no-such-program' is no program that is found here"):
        check(["no-such-program"])
    with pytest.raises(ConfigError, match="no command; write it after --"):
        check([])
    check(["sh"])
