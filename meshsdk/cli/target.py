"""The application that `meshsdk run` serves: found by `module:attribute`, and what it speaks."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any, Literal

from meshsdk.errors import ConfigError

__all__ = ["load_target", "spoken"]


def load_target(target: str) -> Any:
    """Import an application; the folder we are in must be on the path.

    Raises:
        ConfigError: there is no such module or attribute, or it is not an application; says what there is.
    """
    name, colon, attribute = target.partition(":")
    if not colon or not name or not attribute:
        raise ConfigError(f"{target!r} names no application: write module:attribute, such as app:app or shop.web:app")
    found: Any = _module(name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"module {name} has no {attribute!r}{_similar(part, found)}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{target} is {_kind(found)}, and not an ASGI or WSGI application, which can be called")
    return found


def spoken(app: Any) -> Literal["asgi", "wsgi"]:
    """Whether an application is ASGI, as one whose call is a coroutine is, or WSGI.

    Raises:
        ConfigError: it is a class or takes no arguments, as factories do.
    """
    call = app if inspect.isroutine(app) else app.__call__
    if inspect.isclass(app) or not inspect.signature(call).parameters:
        raise ConfigError(f"{_kind(app)} makes applications and is none: name what it makes, in a module of your own")
    return "asgi" if inspect.iscoroutinefunction(call) else "wsgi"


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # An import within the module that fails is the module's own trouble, and its traceback is what helps.
        if not name.startswith(error.name or ""):
            raise
        here = [path.stem for path in Path.cwd().glob("*.py")]
        close = difflib.get_close_matches(name, here, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"there is no module {error.name!r} in {Path.cwd()} or among what is installed{hint}"
        ) from None


def _similar(name: str, found: Any) -> str:
    close = difflib.get_close_matches(name, [one for one in vars(found) if callable(getattr(found, one))], 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _kind(found: Any) -> str:
    kind = found if inspect.isclass(found) or inspect.isroutine(found) else type(found)
    return f"{kind.__module__}.{kind.__qualname__}"
