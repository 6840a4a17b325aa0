"""`x-forwarded-client-cert`: what the application may hear of its caller's certificate, in Envoy's form.

Rule 1  What a caller sent under this name is dropped, whoever it is: an application behind another mesh may trust it.
Rule 2  It is set only where the settings ask for it, and only from the identity that TLS has verified.
"""

from __future__ import annotations

__all__ = ["XFCC", "element"]

XFCC = b"x-forwarded-client-cert"


def element(own: str, peer: str) -> bytes:
    """The header's value: `By` is our own SPIFFE id, left out where it is not known, `URI` the caller's.

    A SPIFFE id holds neither `;` nor `,` nor quotes, so nothing needs escaping.
    """
    return (f"By={own};URI={peer}" if own else f"URI={peer}").encode("ascii")
