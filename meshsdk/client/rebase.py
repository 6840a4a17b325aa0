"""The same class on another HTTP library: how httpx and httpx2 get errors, bodies and transports from one definition.

httpx2 has httpx's names and none of its classes, and each insists on its own: a client takes only a reply whose stream
is its own `SyncByteStream`, and callers catch its own exceptions. So what we do is written once, in classes that know
neither; a class that callers meet adds the library's base and nothing else:

    class Body(BlockingBody, httpx.SyncByteStream): ...
    rebased(Body, httpx2)     # the same, on httpx2.SyncByteStream

httpx2 is never imported here: its user hands the module in.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeVar, cast

import httpx

from meshsdk.errors import ConfigError

__all__ = ["check_library", "rebased"]

C = TypeVar("C", bound=type)

_KNOWN = ("httpx", "httpx2")


def check_library(module: object) -> ModuleType:
    """Return `module`.

    Raises:
        ConfigError: it is neither httpx nor httpx2.
    """
    if isinstance(module, ModuleType) and module.__name__ in _KNOWN:
        return module
    given = f"the module {module.__name__}" if isinstance(module, ModuleType) else repr(module)
    raise ConfigError(
        f"library={given}: write library=httpx or library=httpx2, the module itself (`import httpx2` before)"
    )


def rebased(cls: C, module: ModuleType, **members: Any) -> C:
    """`cls` with the bases that are httpx's replaced by those of `module`; `cls` itself where that is httpx.

    Args:
        cls: a class without methods of its own; they are its other bases'.
        members: class attributes that differ from those of `cls`.
    """
    if module is httpx:
        return cls
    bases = tuple(_of(module, base) for base in cls.__bases__)
    # Pickle finds the errors by this name, through `__getattr__` of their module.
    name = f"{module.__name__}.{cls.__name__}"
    own = {"__doc__": cls.__doc__, "__module__": cls.__module__, "__qualname__": name, **members}
    return cast(C, type(cls.__name__, bases, own))


def _of(module: ModuleType, base: type) -> type:
    theirs: type = getattr(module, base.__name__) if getattr(httpx, base.__name__, None) is base else base
    return theirs
