"""The served side: what happens to a request before and after the application sees it, and the life of the process.

asgi.py wsgi.py  thin adapters around an application              inbound.py     what both share: admit, count, end once
instrument.py    FastAPI, Starlette, Flask                        deadline.py    the caller's deadline, from headers
route.py         the matched route's template                     answers.py     replies of the middleware's own
lifecycle.py     starting, ready, draining, stopped; Consul       signals.py     SIGTERM, before the server hears of it
workers.py       processes that share one port                    supervisor.py  will another take our place?
scrape.py        metrics of all workers, on a path or a port      probe.py       is the port ours yet?
server.py        all of it, for one Mesh                          address.py     where callers reach us
"""

from __future__ import annotations

__all__: list[str] = []
