"""py-consul's API classes without its own transport, which nothing here uses and which imports requests.

`import consul` imports `consul.std`, and that requests, urllib3 and charset_normalizer: 5 MB and a tenth of a second in
every process. While the package is imported a stand-in is found in its place; afterwards `consul.Consul` and
`consul.std` are what they always are, for whoever asks for them.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def _import_package() -> None:
    if "consul" in sys.modules:
        return  # somebody else wanted all of it
    stand_in: Any = ModuleType("consul.std")
    stand_in.Consul = None  # what the package looks for in it
    sys.modules["consul.std"] = stand_in
    try:
        package: Any = importlib.import_module("consul")
    finally:
        del sys.modules["consul.std"]
    del package.Consul
    package.__getattr__ = _when_asked  # PEP 562


def _when_asked(name: str) -> Any:
    if name != "Consul":
        raise AttributeError(f"module 'consul' has no attribute {name!r}")
    package: Any = sys.modules["consul"]
    package.Consul = importlib.import_module("consul.std").Consul
    return package.Consul


_import_package()

from consul import base  # noqa: E402 - the package comes first
from consul.callback import CB  # noqa: E402
from consul.exceptions import ConsulException  # noqa: E402

__all__ = ["CB", "ConsulException", "base"]
