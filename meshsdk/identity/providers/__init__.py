"""Where identities come from, each behind one protocol.

provider.py   the protocol       consul.py   Consul's CA       files.py   PEM files, watched
"""

from __future__ import annotations

__all__: list[str] = []
