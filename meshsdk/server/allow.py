"""`@mesh.allow`: a handler that only some callers may reach, said in code beside the policy.

It narrows: what the policy refuses never gets here. The error it raises is one that FastAPI, Starlette and Flask turn
into a 403 themselves, so their own error pages and hooks see it; anywhere else the adapters do.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

from meshsdk.core.access import Access, narrow
from meshsdk.core.request import Request
from meshsdk.errors import AccessDenied
from meshsdk.telemetry.context import current

__all__ = ["narrowed"]

F = TypeVar("F", bound=Callable[..., Any])


def narrowed(handler: F, from_: Iterable[str], trust_domain: Callable[[], str]) -> F:
    """Return the handler, refusing callers that are not among `from_`.

    Args:
        handler: a function or a coroutine function, with the signature its framework asks for.
        from_: sources, as in a policy's rules.
        trust_domain: our own; empty as long as there is no identity.

    Raises:
        ValueError: a source names nobody.
    """
    access = narrow(from_, f"@mesh.allow on {getattr(handler, '__qualname__', handler)}")

    @wraps(handler)
    async def aguarded(*args: Any, **kwargs: Any) -> Any:
        _check(access, trust_domain())
        return await handler(*args, **kwargs)

    @wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        _check(access, trust_domain())
        return handler(*args, **kwargs)

    return cast("F", aguarded if inspect.iscoroutinefunction(handler) else guarded)


def _check(access: Access, trust_domain: str) -> None:
    inbound = current.get()
    peer = inbound.peer if inbound else None
    decision = access.decide(Request(peer, trust_domain, "", "/", lambda _: ()))
    if decision.allowed:
        return
    if inbound is not None:
        inbound.denied = access.rules[0].name
    raise _denial(f"{peer or 'a caller without a verified identity'} may not do this here")


def _denial(text: str) -> AccessDenied:
    kind = _kind(*(_loaded(*name) for name in (("starlette", "HTTPException"), ("werkzeug", "Forbidden"))))
    error = kind.__new__(kind)  # each base has an __init__ of its own; what they set is set here
    error.args = (text,)
    facts = {"status_code": 403, "detail": text, "headers": None, "description": text, "response": None}
    error.__dict__.update(facts)
    return error


def _loaded(package: str, name: str) -> type | None:
    """Without an import of ours: while nobody has imported the framework, it handles no request."""
    return getattr(sys.modules.get(f"{package}.exceptions"), name, None)


@lru_cache(4)
def _kind(*frameworks: type | None) -> type[AccessDenied]:
    return type("AccessDenied", (AccessDenied, *filter(None, frameworks)), {"__module__": "meshsdk.errors"})
