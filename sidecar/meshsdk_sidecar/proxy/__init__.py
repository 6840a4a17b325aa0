"""The sidecar's way of bytes: connections of clients, where their requests go, and tunnels."""

from __future__ import annotations

__all__: list[str] = []
