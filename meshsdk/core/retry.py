"""What may be tried again, and after which pause. Pure: an outcome goes in, a reason comes out.

Rule 1: a try that wrote no byte of the request is safe to repeat whatever the method; nothing was asked yet. A driver
that already took pieces of a one-shot body must report `Phase.WRITTEN`, as they cannot be taken twice.
Rule 2: once written, a request is repeated only if it is idempotent (RFC 9110, 9.2.2) and its body can be sent again.
Rule 3: a reply's head that came in part counts as no reply: rule 2 holds. So does a short reply, where drivers wait for
all of it.
Rule 4: a certificate that a peer refused in the handshake, or right after it, is a failed connection (rule 1): other
instances may trust other authorities. One refused later, with the request perhaps read, is not tried again.
Rule 5: a try that ended because the caller closed its client is the last, whatever it had written.
Rule 6: the first reason that forbids is the one that is told, from the outcome's own to the circumstances'.
"""

from __future__ import annotations

import random

from meshsdk.core.model import Call, Failure, Phase
from meshsdk.core.plan import Retries

__all__ = ["backoff", "blames", "forbidden", "penalised"]


def blames(status: int) -> bool:
    """Whether a status is a failure of the endpoint: every 5xx. A 429 is a refusal by an endpoint in good order."""
    return status >= 500


def penalised(status: int) -> bool:
    """Whether a balancer must not take the quick answer for a good one: 5xx and 429."""
    return status >= 500 or status == 429


def forbidden(retries: Retries, call: Call, number: int, outcome: int | Failure) -> str:
    """Say why try `number` with this outcome (a status or a failure) is the last one; empty if it need not be.

    The words: `answered`, `retries-off`, `not-retried-status`, `not-retried-<kind>`, `attempts-used`, `not-idempotent`,
    `body-not-replayable`.
    """
    reason = _not_listed(retries, outcome)
    if reason:
        return reason
    if number >= retries.attempts:
        return "attempts-used" if retries.attempts > 1 else "retries-off"
    if isinstance(outcome, Failure) and outcome.phase <= Phase.NOT_WRITTEN:
        return ""
    if not (call.idempotent or retries.any_method):
        return "not-idempotent"
    return "" if call.replayable else "body-not-replayable"


def backoff(retries: Retries, number: int, rng: random.Random) -> float:
    """Seconds to wait after try `number`: full jitter in [0, min(max, base * 2**(number-1))].

    Full jitter spreads simultaneous retries best (as in Envoy). The exponent stops at 30, above any max.
    """
    ceiling = min(retries.backoff_max, retries.backoff_base * 2.0 ** min(number - 1, 30))
    return ceiling * rng.random()


def _not_listed(retries: Retries, outcome: int | Failure) -> str:
    if not isinstance(outcome, Failure):
        if outcome in retries.statuses:
            return ""
        return "not-retried-status" if penalised(outcome) else "answered"
    unwritten = outcome.phase <= Phase.NOT_WRITTEN
    if outcome.kind == "closed":
        return "not-retried-closed"
    broken = outcome.kind not in ("connect-failure", "tls")
    if (unwritten and retries.connect_failure) or (broken and retries.reset):
        return ""
    return f"not-retried-{outcome.kind}"
