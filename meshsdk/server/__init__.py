"""The served side: what happens to a request before and after the application sees it, and the life of the process.

inbound.py     what both adapters share: admit, count, end once     asgi.py  wsgi.py   thin adapters
deadline.py    the caller's deadline, read from headers (pure)      instrument.py      FastAPI, Starlette, Flask
answers.py     replies of the middleware's own                      server.py          all of it for one Mesh
lifecycle.py   starting, ready, draining, stopped                   signals.py         SIGTERM, told to both
workers.py     processes that share one port                        probe.py           is the port ours yet?
scrape.py      metrics on a port of their own                       address.py         where callers reach us
"""

from __future__ import annotations

__all__: list[str] = []
