"""Permissions of Consul's intentions: conditions on path, method and headers, and what to make of unsure ones.

A condition is met surely, possibly or not. A permission that denies matches when it is possibly met, one that allows
when it surely is: `intentions` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshsdk.core.access import Decision
from meshsdk.core.entries import HeaderCondition, PermissionEntry
from meshsdk.core.paths import spelled
from meshsdk.core.patterns import Pattern
from meshsdk.core.request import Request

__all__ = ["Permission", "said"]


Fits = Callable[[str], bool | None]
"""Whether a text meets a condition; None where that cannot be said."""


class _Texts:
    """A condition that several texts must meet: all readings of a path, all values of a header."""

    __slots__ = ("_fits",)

    def __init__(self, fits: Fits) -> None:
        self._fits = fits

    def surely(self, texts: Sequence[str]) -> bool:
        return bool(texts) and all(self._fits(text) is True for text in texts)

    def possibly(self, texts: Sequence[str]) -> bool:
        return any(self._fits(text) is not False for text in texts)


class _Header:
    """A condition on one header."""

    __slots__ = ("_invert", "_present", "_texts", "name")

    def __init__(self, condition: HeaderCondition, fits: Fits | None) -> None:
        self.name = condition.name.lower()
        self._invert = condition.invert
        self._present = fits is None
        self._texts = _Texts(fits or (lambda _: True))

    def surely(self, values: Sequence[str]) -> bool:
        if self._present:
            return bool(values) is not self._invert
        if self._invert:
            return bool(values) and not self._texts.possibly(_with_parts(values))
        return self._texts.surely(values)

    def possibly(self, values: Sequence[str]) -> bool:
        if self._present:
            return bool(values) is not self._invert
        return not self._texts.surely(values) if self._invert else self._texts.possibly(_with_parts(values))


def _with_parts(values: Sequence[str]) -> list[str]:
    """Values, what is between their commas, and all of them as one line (RFC 9110, 5.3)."""
    if len(values) == 1 and "," not in values[0]:
        return list(values)
    parts = [part.strip() for value in values for part in value.split(",")]
    return [*values, *parts, ",".join(values), ", ".join(values)]


class Permission:
    """A permission made ready."""

    __slots__ = ("_headers", "_known", "_methods", "_path", "decision")

    def __init__(self, entry: PermissionEntry, name: str, refusals: list[str]) -> None:
        self.decision = said(entry.action, name, "permission")
        self._known = not entry.unknown
        refusals += [f"{name}: {condition} is not judged" for condition in entry.unknown]
        self._methods = frozenset(entry.methods)
        path = _path(entry, f"{name}.path", refusals)
        self._path = _Texts(path) if path else None
        self._headers = tuple(
            _Header(header, _value(header, f"{name}.header {header.name}", refusals)) for header in entry.headers
        )

    def matches(self, request: Request) -> bool:
        """Whether it decides about this request."""
        return self._surely(request) if self.decision.allowed else self._possibly(request)

    def _surely(self, request: Request) -> bool:
        return (
            self._known
            and (not self._methods or request.method in self._methods)
            and (not self._path or self._path.surely(request.paths.readings))
            and request.surely(self._headers)
        )

    def _possibly(self, request: Request) -> bool:
        return (
            (not self._methods or request.method.upper() in self._methods)
            and (not self._path or bool(request.paths.unclear) or self._path.possibly(request.paths.readings))
            and request.possibly(self._headers)
        )


def said(action: str, name: str, kind: str) -> Decision:
    """The decision of an intention or a permission; what is not `allow` denies, as in Consul."""
    return Decision(action == "allow", name, f"the {kind} allows it" if action == "allow" else f"the {kind} denies it")


def _path(entry: PermissionEntry, name: str, refusals: list[str]) -> Fits | None:
    if entry.path_exact:
        exact = _spelled(entry.path_exact, name, refusals)
        return _unsure if exact is None else exact.__eq__
    if entry.path_prefix:
        prefix = _spelled(entry.path_prefix, name, refusals)
        return _unsure if prefix is None else lambda path: path.startswith(prefix)
    return _pattern(entry.path_regex, name, refusals) if entry.path_regex else None


def _value(condition: HeaderCondition, name: str, refusals: list[str]) -> Fits | None:
    """None for a condition that only asks whether the header is there."""
    if condition.regex:
        return _pattern(condition.regex, name, refusals)
    kinds: dict[str, Callable[[str, str], bool]] = {
        "exact": str.__eq__,
        "prefix": str.startswith,
        "suffix": str.endswith,
        "contains": str.__contains__,
    }
    for kind, fits in kinds.items():
        if wanted := getattr(condition, kind):
            return _text(fits, wanted, any_case=condition.ignore_case)
    if condition.present:
        return None
    refusals.append(f"{name}: no condition that is known")
    return _unsure


def _text(fits: Callable[[str, str], bool], wanted: str, *, any_case: bool) -> Fits:
    return (lambda value: fits(value.lower(), wanted.lower())) if any_case else (lambda value: fits(value, wanted))


def _unsure(_: str) -> None:
    return None


def _spelled(path: str, name: str, refusals: list[str]) -> str | None:
    try:
        return spelled(path)
    except ValueError as unclear:
        refusals.append(f"{name}: {unclear}")
        return None


def _pattern(text: str, name: str, refusals: list[str]) -> Fits:
    try:
        return Pattern(text).matches
    except ValueError as refused:
        refusals.append(f"{name}: {refused}")
        return _unsure
