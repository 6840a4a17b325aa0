"""Signals, in a process of its own for each case: kept once, given on, never kept in a child."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]

SETUP = """
import os, signal, sys, threading, time
from meshsdk.server.signals import Signals
told = []
def first(number):
    told.append(signal.Signals(number).name)
    return len(told) == 1
signals = Signals(first)
def mine(number, frame): print("server", signal.Signals(number).name, "after", told, flush=True)
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    script = SETUP + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=20, cwd=ROOT, check=False
    )


def test_first_is_kept_and_given_on_later() -> None:
    done = run("""
        signal.signal(signal.SIGTERM, mine)
        signals.install(); signals.install()
        signal.raise_signal(signal.SIGTERM)
        print("kept", told)
        threading.Thread(target=signals.release, args=(signal.SIGTERM,)).start()
        time.sleep(1)
    """)
    assert done.stdout.splitlines() == ["kept ['SIGTERM']", "server SIGTERM after ['SIGTERM', 'SIGTERM']"], done.stderr


def test_default_action_ends_the_process() -> None:
    done = run("""
        signals.install()
        print(signals.abrupt(signal.SIGTERM), signals.abrupt(signal.SIGINT), flush=True)
        signal.raise_signal(signal.SIGTERM)
        print("still here", flush=True)
        signals.release(signal.SIGTERM)
        time.sleep(5)
    """)
    assert done.stdout.splitlines() == ["True True", "still here"]
    assert done.returncode == -15


def test_release_wakes_the_main_thread() -> None:
    """A development server waits in accept() without a wake-up descriptor: a signal to its own thread ends that."""
    done = run("""
        import socket
        signals.install()
        listener = socket.create_server(("127.0.0.1", 0))
        signal.raise_signal(signal.SIGINT)
        threading.Timer(0.1, signals.release, args=(signal.SIGINT,)).start()
        began = time.monotonic()
        try:
            listener.accept()
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - began < 3)
    """)
    assert done.stdout.splitlines() == ["interrupted True"], done.stderr


def test_child_gives_everything_on() -> None:
    done = run("""
        signal.signal(signal.SIGTERM, mine)
        signals.install()
        if os.fork() == 0:
            signal.raise_signal(signal.SIGTERM)
            sys.stdout.flush(); os._exit(0)
        os.wait()
        print("parent", told)
    """)
    assert done.stdout.splitlines() == ["server SIGTERM after []", "parent []"]


def test_outside_the_main_thread_it_is_installed_by_the_main_thread() -> None:
    done = run("""
        signal.signal(signal.SIGTERM, mine)
        thread = threading.Thread(target=signals.install); thread.start(); thread.join()
        time.sleep(0.05)
        signal.raise_signal(signal.SIGTERM)
        print("kept", told)
    """)
    assert done.stdout.splitlines() == ["kept ['SIGTERM']"], done.stderr


def test_ignored_signals_stay_ignored() -> None:
    done = run("""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signals.install()
        print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
    """)
    assert done.stdout.splitlines() == ["True"]


def test_handlers_of_event_loops_run_once() -> None:
    for factory in ("asyncio.new_event_loop", "__import__('uvloop').new_event_loop"):
        done = run(f"""
            import asyncio
            async def main():
                asked = []
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGTERM, lambda: asked.append("loop"))
                signals.install()
                signal.raise_signal(signal.SIGTERM)
                await asyncio.sleep(0.05)
                signals.release(signal.SIGTERM)
                await asyncio.sleep(0.05)
                print(asked[:1], told[:1])
            with asyncio.Runner(loop_factory={factory}) as runner:
                runner.run(main())
        """)
        assert done.stdout.splitlines() == ["['loop'] ['SIGTERM']"], done.stderr
