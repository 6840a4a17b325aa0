"""py-consul's API classes without its own transport, which nothing here uses and which imports requests.

`import consul` imports `consul.std`, and that requests, urllib3 and charset_normalizer: 5 MB and a tenth of a second in
every process; and its version is read from an archive's metadata, another 1 MB. So the package is there for its modules
to be found in, and is run when something of its own is asked for, such as `consul.Consul`: for others it is whole.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any


def _find_package() -> None:
    spec = importlib.util.find_spec("consul")
    if spec is None:
        raise ModuleNotFoundError("No module named 'consul': install py-consul", name="consul")
    package: Any = importlib.util.module_from_spec(spec)
    sys.modules["consul"] = package
    package.Check = importlib.import_module("consul.check").Check  # its modules look for it there


def _when_asked(name: str) -> Any:
    if name.startswith("__") and name != "__version__":  # as tools ask of every module there is
        raise AttributeError(f"module 'consul' has no attribute {name!r}")
    package: Any = sys.modules["consul"]
    del package.__getattr__
    package.__spec__.loader.exec_module(package)
    return getattr(package, name)


_whole = "consul" in sys.modules  # somebody else wanted all of it
if not _whole:
    _find_package()

from consul import base  # noqa: E402 - the package comes first
from consul.callback import CB  # noqa: E402
from consul.exceptions import ConsulException  # noqa: E402

if not _whole:
    vars(sys.modules["consul"])["__getattr__"] = _when_asked  # PEP 562

__all__ = ["CB", "ConsulException", "base"]
