"""What access rules are read with: where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from meshsdk.server.beginning import Source
from meshsdk.server.guard import Intentions
from meshsdk.tokens.keeper import Tokens

__all__ = ["Who"]


@dataclass(frozen=True, slots=True)
class Who:
    """What access rules are read with.

    Attributes:
        intentions: of Consul, those in force; None where none is about this service.
        sources: what is to be known before the first request is judged.
        trust_domain: our own; empty as long as it is not known.
        own_id: our own SPIFFE id; empty as long as it is not known.
        tokens: judges end users' tokens; None where the policy asks for none.
    """

    intentions: Callable[[], Intentions | None] = lambda: None
    sources: Sequence[Source] = ()
    trust_domain: Callable[[], str] = str
    own_id: Callable[[], str] = str
    tokens: Tokens | None = None
