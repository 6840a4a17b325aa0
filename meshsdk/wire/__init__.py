"""HTTP/1.1 to one endpoint: connections, deadlines, and how far a failed try got.

`engine.py` is the whole interface; everything else may be replaced behind it. Nothing here chooses an endpoint, tries
again or knows a service.
"""

from __future__ import annotations

__all__: list[str] = []
