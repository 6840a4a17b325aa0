"""The served side: what happens to a request before and after the application sees it, and the life of the process.

asgi.py wsgi.py  thin adapters around an application              inbound.py     what both share: admit, count, end once
instrument.py    FastAPI, Starlette, Flask                        deadline.py    the caller's deadline, from headers
route.py         the matched route's template                     answers.py     replies of the middleware's own
guard.py         who may pass                                     allow.py       the same, said in a handler's code
entrance.py      where callers of the mesh come in                forwarded.py   what the app hears of certificates
listener.py      the mesh's own port beside an ASGI server's      protocol.py    HTTP/1.1 on it, by uvicorn
sniffing.py      TLS and clear text on a WSGI server's port       gunicorn.py    the same by its configuration
verified.py      what TLS has verified of a caller                prefix.py      what is left of a path below one
lifecycle.py     starting, ready, draining, stopped; Consul       signals.py     SIGTERM, before the server hears of it
workers.py       processes that share one port                    supervisor.py  will another take our place?
scrape.py        metrics of all workers, on a path or a port      probe.py       is the port ours yet?
server.py        all of it, for one Mesh                          address.py     where callers reach us
who.py           what rules are read with
"""

from __future__ import annotations

__all__: list[str] = []
