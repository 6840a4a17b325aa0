"""`retries`: what is tried again, how often and how soon."""

# ruff: noqa: RUF009 - `setting` returns dataclasses.field

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from meshsdk.core import plan as core
from meshsdk.policy.durations import duration, duration_text, period
from meshsdk.policy.kinds import Kind, choice, quantity, share, whole
from meshsdk.policy.refused import NOT_ENFORCED, UNENFORCED_CONDITIONS
from meshsdk.policy.section import Section, each, number, section, setting, single

__all__ = ["Backoff", "Budget", "Retries"]

_CONDITIONS = ("connect-failure", "reset")


def _condition(value: object) -> str | int:
    if isinstance(value, str) and value in UNENFORCED_CONDITIONS:
        raise ValueError(NOT_ENFORCED)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if isinstance(value, str) and value in _CONDITIONS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    raise ValueError("not a condition; write connect-failure, reset or a status code from 400 to 599")


def _not_empty(value: object) -> None:
    if value == []:
        raise ValueError("would never try again; name a condition, or write `attempts: 1` to turn retries off")


_SCHEMA = {
    "anyOf": [
        {"enum": list(_CONDITIONS)},
        {"type": "integer", "minimum": 400, "maximum": 599},
        {"type": "string", "pattern": "^[45][0-9]{2}$"},
    ]
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff(Section):
    """The pause before the n-th retry: a random time between 0 and base · 2ⁿ⁻¹, at most `max` (full jitter).

    A `Retry-After` in the reply counts instead, where the deadline leaves time for it. `base` fits into `max`.
    """

    base: float = setting(
        duration,
        "25ms",
        """Upper end of the first pause; `0` retries at once. 25ms is Envoy's: about the time a process needs to get
        over a garbage collection or a full accept queue.""",
    )
    max: float = setting(
        duration,
        "250ms",
        "Upper end of every pause. 250ms is ten times `base`, as in Envoy: a person waiting does not notice it.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget(Section):
    """How much load retries may add, so that a failing service is not buried by them.

    A retry takes its share when it is decided, before it pauses, so a thousand calls that fail at once cannot all pass.
    """

    ratio: float = setting(
        share,
        0.2,
        """Retries allowed per call within `window`. 0.2, a fifth more load at worst, is the number of Finagle and
        Linkerd.""",
    )
    min_per_second: float = setting(
        quantity(0, 10_000),
        10,
        """Retries per second that are allowed in any case, per process. 10 lets a service with little traffic retry
        at all (Finagle, Linkerd).""",
    )
    window: float = setting(
        period,
        "10s",
        "How long a call counts for the budget. 10s outlasts a short fault and forgets a long calm (Finagle, Linkerd).",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries(Section):
    """What is tried again, on another instance where there is one.

    A request of which no byte was written is always safe to send again. One that was written is repeated only if it is
    idempotent (RFC 9110, 9.2.2) or carries an `Idempotency-Key`.
    """

    attempts: int = setting(
        whole(1, 10),
        3,
        """Attempts in all; `1` turns retries off. With 3, an instance out of five that fails lets 1 call in 125
        through as an error; more attempts mostly add waiting. More than 10 is refused: the budget would stop them
        anyway.""",
    )
    on: tuple[str | int, ...] = setting(
        each(single(Kind(_condition, _SCHEMA)), before=_not_empty, minItems=1),
        ["connect-failure", "reset", 502, 503, 504],
        """When to try again: `connect-failure` (no byte was written), `reset` (the connection broke, or an attempt
        timed out, before the reply's head or within a reply of at most 16 KiB), status codes from 400 to 599. 502, 503
        and 504 say "not now, not here"; 500 is left out because it mostly means a bug that a second try meets again.
        A list replaces an earlier one.""",
    )
    methods: Literal["idempotent", "all"] = setting(
        choice("idempotent", "all"),
        "idempotent",
        """Which written requests may be repeated. `all` repeats POST and PATCH too, without an `Idempotency-Key`:
        WARNING, what they do may then be done twice. Choose it only for a service that recognises repeated
        requests.""",
    )
    backoff: Backoff = setting(section(Backoff), {}, "The pause before a retry.")
    budget: Budget = setting(section(Budget), {}, "How much load retries may add.")

    def plan(self) -> core.Retries:
        """As the core reads it."""
        return core.Retries(
            attempts=self.attempts,
            connect_failure="connect-failure" in self.on,
            reset="reset" in self.on,
            statuses=frozenset(item for item in self.on if isinstance(item, int)),
            any_method=self.methods == "all",
            backoff_base=self.backoff.base,
            backoff_max=self.backoff.max,
            budget_ratio=self.budget.ratio,
            budget_min_per_second=self.budget.min_per_second,
            budget_window=self.budget.window,
        )

    @staticmethod
    def dump(retries: core.Retries) -> dict[str, Any]:
        """As a document would write it."""
        failures = {"connect-failure": retries.connect_failure, "reset": retries.reset}
        return {
            "attempts": retries.attempts,
            "on": [*(name for name, wanted in failures.items() if wanted), *sorted(retries.statuses)],
            "methods": "all" if retries.any_method else "idempotent",
            "backoff": {"base": duration_text(retries.backoff_base), "max": duration_text(retries.backoff_max)},
            "budget": {
                "ratio": number(retries.budget_ratio),
                "min_per_second": number(retries.budget_min_per_second),
                "window": duration_text(retries.budget_window),
            },
        }
