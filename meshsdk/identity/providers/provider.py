"""The protocol of all providers of identities, and of what examines for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from meshsdk.identity.events import Trouble
from meshsdk.identity.material import Material

__all__ = ["Examine", "Provider", "Publish", "examine_here"]

Publish = Callable[[Material | Trouble], None]


class Examine(Protocol):
    """Makes material of PEM texts: `examine_here`, or `meshsdk.identity.apart.examine_leanly`."""

    async def __call__(
        self, chain: str, key: str, roots: str, *, now: datetime, trust_domain: str = "", rooted: bool = True
    ) -> Material:
        """As `meshsdk.identity.examination.examined`."""
        ...


async def examine_here(
    chain: str, key: str, roots: str, *, now: datetime, trust_domain: str = "", rooted: bool = True
) -> Material:
    """In this process, in under a millisecond once the library for certificates is loaded."""
    from meshsdk.identity.examination import examined

    return examined(chain, key, roots, now=now, trust_domain=trust_domain, rooted=rooted)


class Provider(Protocol):
    """Gives material, and newer material before that expires."""

    async def run(self, publish: Publish) -> None:
        """Publish what there is and each change until cancelled, on the background loop; on its own.

        It keeps nothing between runs: after a fork the child runs it anew, while the parent's run was never ended.
        What is wrong for a while is published as `Trouble`, once as long as the words stay the same.
        """
        ...
