"""The sidecar: the mesh for services in other languages, on the same core."""

from __future__ import annotations

__all__: list[str] = []
