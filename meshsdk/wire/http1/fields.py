"""What a field of a header or trailer is made of (RFC 9110, 5.5 and 5.6.2)."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["CONTROL", "TOKEN"]

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
