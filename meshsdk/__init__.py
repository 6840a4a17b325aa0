"""meshsdk: a service mesh inside the Python process."""

from __future__ import annotations

__all__: list[str] = []
