"""`x-forwarded-client-cert`: what the application may hear of its caller's certificate, in Envoy's form.

Rule 1  What a caller sent under this name is dropped, whoever it is: an application behind another mesh may trust it.
        So is `x_forwarded_client_cert`, which is the same to an application behind CGI's names.
Rule 2  It is set only where the settings ask for it, and only from the identity that TLS has verified.
"""

from __future__ import annotations

from itertools import product
from typing import Final

__all__ = ["SPELLINGS", "XFCC", "element"]

XFCC: Final = b"x-forwarded-client-cert"

SPELLINGS: Final = frozenset(b"x%bforwarded%bclient%bcert" % between for between in product((b"-", b"_"), repeat=3))
"""What is dropped, in small letters."""


def element(own: str, peer: str) -> bytes:
    """The header's value: `By` is our own SPIFFE id, left out where it is not known, `URI` the caller's.

    A SPIFFE id holds neither `;` nor `,` nor quotes, so nothing needs escaping.
    """
    return (f"By={own};URI={peer}" if own else f"URI={peer}").encode("ascii")
