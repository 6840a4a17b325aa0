"""The protocol of all providers of identities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshsdk.identity.events import Trouble
from meshsdk.identity.material import Material

__all__ = ["Provider", "Publish"]

Publish = Callable[[Material | Trouble], None]


class Provider(Protocol):
    """Gives material, and newer material before that expires."""

    async def run(self, publish: Publish) -> None:
        """Publish what there is and each change until cancelled, on the background loop; on its own.

        It keeps nothing between runs: after a fork the child runs it anew, while the parent's run was never ended.
        What is wrong for a while is published as `Trouble`, once as long as the words stay the same.
        """
        ...
