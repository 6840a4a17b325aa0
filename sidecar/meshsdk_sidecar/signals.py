"""SIGTERM and SIGINT: the first asks for the end, a second one is the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable

__all__ = ["end_on_signals"]

log = logging.getLogger("meshsdk.sidecar")


def end_on_signals(stop: Callable[[], object], kill: Callable[[], object] = lambda: None) -> None:
    """Take over the signals of the process that runs this loop.

    Args:
        stop: called at the first one.
        kill: called at the second, before the process ends as if the signal had killed it: takes others with it.
    """
    loop, told = asyncio.get_running_loop(), list[int]()

    def signalled(number: int) -> None:
        told.append(number)
        if len(told) == 1:
            stop()
            return
        log.warning("a second signal: ending at once")
        kill()
        logging.shutdown()
        os._exit(128 + number)  # whatever would be waited for, nobody wants to wait any more

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
