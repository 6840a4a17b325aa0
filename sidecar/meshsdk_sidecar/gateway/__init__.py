"""The way into the mesh from outside: public TLS ends here, and hosts and paths lead to services."""

from __future__ import annotations

__all__: list[str] = []
