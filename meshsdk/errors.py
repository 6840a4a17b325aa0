"""The one tree of errors, named for who can do something about them.

    MeshError
    ├── ConfigError             an argument or MESH_*/CONSUL_* variable is wrong
    ├── PolicyError             a policy document has mistakes; all of them are listed
    ├── AccessDenied            a handler's own `@mesh.allow` lets in other callers only; answered with 403
    └── CallError               a call did not get an answer
        ├── Refused             nothing was sent for the last try; the mesh itself said no
        │   ├── UnknownService      Consul cannot be asked, and nothing is remembered of the service   (NR)
        │   ├── NoEndpoint          Consul was asked and knows no usable instance                      (UH)
        │   ├── Overloaded          `limits` are reached                                               (UO)
        │   ├── BreakerOpen         `circuit_breaker` is open                                          (UO)
        │   ├── RateLimited         `rate_limit` is used up                                            (RL)
        │   └── EgressDenied        `egress` does not let through that host outside the mesh           (NR)
        ├── DeadlineExceeded    the time for the call was over                                         (UT)
        └── UpstreamFailed      the last try failed on the wire
            ├── ConnectFailed       no connection to the instance                                      (UF)
            ├── ConnectionLost      reset or closed after the connection stood                         (UC)
            └── BadReply            what came back is not HTTP                                         (UPE)

The letters are Envoy's response flags. The httpx transports raise subclasses of these that are the matching httpx
exceptions too (`meshsdk.client.errors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

__all__ = [
    "AccessDenied",
    "BadReply",
    "BreakerOpen",
    "CallError",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "EgressDenied",
    "MeshError",
    "NoEndpoint",
    "Overloaded",
    "PolicyError",
    "RateLimited",
    "Refused",
    "UnknownService",
    "UpstreamFailed",
]


class MeshError(Exception):
    """Anything meshsdk raises on purpose."""


class ConfigError(MeshError, ValueError):
    """A setting is wrong; the message says which, its value and what to write instead."""


class AccessDenied(MeshError):
    """The caller of the request being served may not do this; the reply is a 403."""


class PolicyError(MeshError, ValueError):
    """A policy document is refused.

    Attributes:
        mistakes: one line each: path, bad value, what would be right.
    """

    def __init__(self, source: str, mistakes: Sequence[str]) -> None:
        self.source = source
        self.mistakes = tuple(mistakes)
        count = f"{len(self.mistakes)} mistake{'s' if len(self.mistakes) != 1 else ''}"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  {line}" for line in self.mistakes))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.source, self.mistakes)


class CallError(MeshError):
    """A call got no answer; the message names service, endpoint, attempts, why no more, and the policy.

    Attributes:
        service: the destination service.
        endpoint: `address:port` of the last try, None where nothing was tried.
        attempts: tries made, the failed one included.
        reason: why no further try was made (the metric's label, such as `attempts-used` or `budget-empty`).
        policy: version of the policy in force, such as `payments@41` or `defaults`.
    """

    flag = "UF"

    def __init__(
        self,
        problem: str,
        *,
        service: str,
        endpoint: str | None = None,
        attempts: int = 0,
        reason: str = "",
        policy: str = "defaults",
    ) -> None:
        self.problem = problem
        self.service = service
        self.endpoint = endpoint
        self.attempts = attempts
        self.reason = reason
        self.policy = policy
        super().__init__(problem)

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own would call the class with `args` alone, without the service it requires.
        return partial(type(self), service=self.service), self.args, self.__dict__

    def __str__(self) -> str:
        tries = f"{self.attempts} attempt{'s' if self.attempts != 1 else ''}"
        last = f", last to {self.endpoint}" if self.endpoint else ""
        why = f"; no further one: {self.reason}" if self.reason else ""
        return f"{self.service}: {self.problem} ({tries}{last}{why}; policy {self.policy}) [{self.flag}]"


class Refused(CallError):
    """The mesh itself said no before anything was sent for the last try."""


class UnknownService(Refused):
    """Nothing is known of the service and Consul cannot be asked; names Consul's address and last error."""

    flag = "NR"


class NoEndpoint(Refused):
    """Consul was asked and knows no usable instance of the service."""

    flag = "UH"


class Overloaded(Refused):
    """`limits` of the destination are reached in this process."""

    flag = "UO"


class BreakerOpen(Refused):
    """The destination's circuit breaker is open."""

    flag = "UO"


class RateLimited(Refused):
    """A rate limit is used up."""

    flag = "RL"


class EgressDenied(Refused):
    """The policy does not let this service call that host outside the mesh; `service` is the host."""

    flag = "NR"


class DeadlineExceeded(CallError):
    """The time for the call, its own or the one its caller gave, was over."""

    flag = "UT"


class UpstreamFailed(CallError):
    """The last try failed on the wire."""


class ConnectFailed(UpstreamFailed):
    """No connection to the instance could be made."""

    flag = "UF"


class ConnectionLost(UpstreamFailed):
    """The instance reset or closed the connection before its reply was complete."""

    flag = "UC"


class BadReply(UpstreamFailed):
    """What the instance sent is not a valid HTTP reply."""

    flag = "UPE"
