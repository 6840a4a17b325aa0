"""What `meshsdk run` starts for a WSGI application: gunicorn, with the mesh's TLS put around its own configuration.

That configuration is read as ever: `gunicorn.conf.py`, `GUNICORN_CMD_ARGS`, `-c`. gunicorn itself reads one file alone,
so the mesh's hooks given as another one would be taken for the user's, or the other way round.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from gunicorn.app.wsgiapp import WSGIApplication  # type: ignore[import-untyped]

from meshsdk.server.gunicorn import take_tls

__all__ = ["THREADS", "Gunicorned"]

THREADS = 8
"""Of a worker, unless something says otherwise: a handler that waits for another service must not keep the next request
waiting."""


class Gunicorned(WSGIApplication):  # type: ignore[misc]
    """gunicorn's command line."""

    def init(self, parser: Any, opts: Any, args: Any) -> Any:
        """Begin with our defaults, which every other place overrules."""
        super().init(parser, opts, args)
        return {"threads": THREADS}

    def load_config(self) -> None:
        """Read everything, at the start and at each SIGHUP, and say then that connections are to be wrapped."""
        super().load_config()
        take_tls(self.cfg)


def _main() -> None:
    # gunicorn's SIGUSR2 starts this file by its path, and its folder would come before all installed packages then.
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).parent)]
    Gunicorned("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").run()


if __name__ == "__main__":
    _main()
