"""End users' tokens: whose keys are known, and what a token that one of them signed says."""

from __future__ import annotations

from meshsdk.tokens.keeper import Tokens

__all__ = ["Tokens"]
