"""`tls`: whether calls to the service are encrypted and both ends prove who they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from meshsdk.policy.kinds import choice
from meshsdk.policy.section import Section, setting

__all__ = ["Tls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls(Section):
    """Whether calls to the service are encrypted and both ends prove who they are (mutual TLS 1.3).

    It is the served side's, and callers keep to it: it stands in `_mesh` and in a service's document, not in `from`.
    """

    mode: Literal["strict", "permissive", "off"] = setting(
        choice("strict", "permissive", "off"),
        "permissive",
        """`strict` takes only callers with a certificate of the mesh, and callers never send it clear text, whatever an
        instance claims. `permissive` uses TLS where both ends can, and takes clear text as well: such callers are
        `anonymous`. `off` is clear text only. `permissive` is the default so that what worked before the mesh still
        works; Istio starts there too. Go on to `strict` when no clear text arrives any more.""",
    )

    def plan(self) -> str:
        """As the core reads it."""
        return self.mode

    @staticmethod
    def dump(mode: str) -> dict[str, Any]:
        """As a document would write it."""
        return {"mode": mode}
