"""Identity: SPIFFE ids, the TLS contexts they travel in, and who is at the other end of a request.

spiffe.py    parse, format and compare ids, pure          contexts.py   TLS contexts from PEM files
peer.py      the verified peer, as each server tells it
"""

from __future__ import annotations

__all__: list[str] = []
