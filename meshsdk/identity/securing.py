"""How a call's connections are secured: what the policy asks, what the instance offers, and who we are.

mode of the policy    the instance takes         without an identity of ours    with one
strict                mTLS (meta `mesh-tls`)     refused                        mTLS
strict                clear text only            refused                        refused
permissive            mTLS                       clear text, if it takes that   mTLS
permissive            clear text only            clear text                     clear text
off                   either                     clear text, if it takes that   the same

An instance whose `mesh-tls` is `strict` takes nothing else, so without an identity it cannot be called. An identity
that was there and has expired is no reason to send in clear text what was encrypted before: such calls are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshsdk.core.model import TLS_META, Endpoint
from meshsdk.runs import TrioRun, running
from meshsdk.wire.security import PeerRejected, Security

if TYPE_CHECKING:
    from meshsdk.core.cluster import Cluster
    from meshsdk.identity.holder import Identity

__all__ = ["TLS_META", "Securing"]


class Securing:
    """Decides for each new connection; handed to the engines as `secure`.

    Args:
        identity: ours; None for a process without one.
        peek: the cluster of a service that is called, for its policy.
        first_wait: seconds a first call waits for the identity to come.
    """

    def __init__(
        self, identity: Identity | None, peek: Callable[[str], Cluster | None], first_wait: float = 2.0
    ) -> None:
        self._identity = identity
        self._peek = peek
        self._first_wait = first_wait

    @property
    def generation(self) -> int:
        """Counts our certificates: connections made under a smaller number show an older one."""
        return self._identity.generation if self._identity else 0

    def wait_ready(self) -> None:
        """Give the identity time to come, before a service's first call."""
        if self._identity is not None:
            self._identity.wait_answer(self._first_wait)

    async def await_ready(self) -> None:
        """The same from any event loop; under trio in a thread, as an identity knows asyncio's loops alone."""
        if self._identity is None:
            return
        if isinstance(running(), TrioRun):
            from anyio import to_thread  # 2 MB with all that follows, which no process without trio needs

            await to_thread.run_sync(self.wait_ready, abandon_on_cancel=True)
        else:
            await self._identity.await_answer(self._first_wait)

    def __call__(self, endpoint: Endpoint, service: str) -> Security | None:
        """How to secure a new connection to `endpoint`; None for clear text.

        Raises:
            PeerRejected: it must not be called as things are; says why, and what to do.
            NoIdentity: it must be called over TLS, and we have no certificate that is valid.
        """
        cluster = self._peek(service)
        mode = cluster.plan.tls if cluster is not None else "permissive"
        offers = endpoint.meta.get(TLS_META)
        if offers and mode != "off" and self._identity is not None and self._identity.state.name != "none":
            return self._identity.client_security(service)
        if mode == "strict":
            raise PeerRejected(self._why_strict(endpoint, service, offers))
        if offers == "strict":
            why = "tls.mode is off in its policy" if mode == "off" else self._why_nobody()
            raise PeerRejected(f"{endpoint} takes mTLS only, and {why}")
        return None

    def _why_strict(self, endpoint: Endpoint, service: str, offers: str | None) -> str:
        if not offers:
            return (
                f"tls.mode of {service} is strict, and {endpoint} is registered as taking clear text only; serve it "
                f"with an identity, or set tls.mode to permissive until it is"
            )
        return f"tls.mode of {service} is strict, and {self._why_nobody()}"

    def _why_nobody(self) -> str:
        if self._identity is None:
            return "this process has no identity (its setting is off)"
        return f"this process has {self._identity.state.reason}"
