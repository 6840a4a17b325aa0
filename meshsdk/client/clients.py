"""Clients that build a request once.

httpx takes a URL apart in 9 µs, makes the rest of a request in 15, and asks an authentication that there is none of in
5: half of its own part of a call. A service calls the same few URLs again and again. What httpx built for a method and
a URL is kept, and handed out in copies as long as nothing has changed that it was made of; a request with anything of
its own (headers, a body, a timeout) is built anew.

The attributes with an underscore are httpx's own, and httpx2's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import httpx

from meshsdk.client.sending import AwaitingSender, BlockingSender, Parts

__all__ = ["AsyncClient", "Client", "Plain", "Remembering", "parser"]

# Those of the last calls, and no long ones, so that they take less than 1 MiB.
_KEPT = 256
_LONGEST = 256

_NONE_S = id(None)


def parser(url: type[httpx.URL]) -> staticmethod[[str], httpx.URL]:
    """What makes URLs of this class, and remembers some."""
    return staticmethod(lru_cache(_KEPT)(url))


@dataclass(slots=True)
class _Built:
    """A request that httpx built, and what of the client it was made of; URLs and parameters cannot be changed."""

    request: httpx.Request
    headers: list[Any]
    base_url: httpx.URL
    params: httpx.QueryParams


class Remembering:
    """Builds requests as httpx does."""

    _parsed: ClassVar[staticmethod[[str], httpx.URL]]
    _unset: ClassVar[object]  # the library's word for what was not given

    _base_url: httpx.URL
    _params: httpx.QueryParams
    _headers: httpx.Headers
    _cookies: httpx.Cookies
    _timeout: httpx.Timeout
    _built: dict[tuple[str, str], _Built]

    def build_request(self, method: str, url: httpx.URL | str, **given: Any) -> httpx.Request:
        """Build a request; arguments, result and errors are httpx's."""
        request: httpx.Request
        unset = self._unset
        # A `timeout` of None is something; other values are not compared, as theirs may be arrays.
        plain = given.get("timeout", unset) is unset and {_NONE_S, id(unset)}.issuperset(map(id, given.values()))
        if type(url) is not str or len(url) > _LONGEST:
            request = super().build_request(method, url, **given)  # type: ignore[misc]
        elif not plain or self._cookies.jar._cookies:  # type: ignore[attr-defined]  # noqa: SLF001 - http.cookiejar's own
            request = super().build_request(method, self._parsed(url), **given)  # type: ignore[misc]
        else:
            request = self._copy(method, url)
        return request

    def _copy(self, method: str, url: str) -> httpx.Request:
        """A request like the one built before, or built now."""
        memory: dict[tuple[str, str], _Built] = self.__dict__.setdefault("_built", {})
        key, fields = (method, url), self._headers._list  # noqa: SLF001
        kept = memory.get(key)
        if (
            kept is None
            or kept.headers != fields
            or kept.base_url is not self._base_url
            or kept.params is not self._params
        ):
            request: httpx.Request = super().build_request(method, self._parsed(url))  # type: ignore[misc]
            kept = _Built(request, list(fields), self._base_url, self._params)
            if len(memory) >= _KEPT:
                memory.clear()  # all at once, so that threads need no lock
            memory[key] = kept
        request = object.__new__(type(kept.request))
        request.__dict__.update(kept.request.__dict__)
        headers = object.__new__(type(request.headers))
        headers.__dict__.update(request.headers.__dict__)
        headers._list = list(headers._list)
        request.headers = headers
        request.extensions = {"timeout": self._timeout.as_dict()}
        return request


class Plain:
    """Asks no authentication where there is none."""

    _unset: ClassVar[object]
    _none: ClassVar[httpx.Auth]  # sends a request as it is, once
    _auth: httpx.Auth | None
    _send_handling_redirects: Callable[..., Any]

    def _build_request_auth(self, request: httpx.Request, auth: Any) -> httpx.Auth:
        if auth is self._unset and self._auth is None and not request.url._uri_reference.userinfo:  # noqa: SLF001
            return self._none
        made: httpx.Auth = super()._build_request_auth(request, auth)  # type: ignore[misc]
        return made

    def _send_handling_auth(
        self, request: httpx.Request, auth: httpx.Auth, follow_redirects: bool, history: list[httpx.Response]
    ) -> Any:
        """Send it; the reply, or what is to be awaited for it."""
        if auth is self._none:
            return self._send_handling_redirects(request, follow_redirects=follow_redirects, history=history)
        return super()._send_handling_auth(request, auth, follow_redirects, history)  # type: ignore[misc]


_PARSED, _NONE, _HTTPX = parser(httpx.URL), httpx.Auth(), Parts(httpx)


class Client(Remembering, Plain, BlockingSender, httpx.Client):  # type: ignore[misc]
    """A client of the mesh's, as httpx's users know it."""

    _parsed = _PARSED
    _unset = httpx.USE_CLIENT_DEFAULT
    _none = _NONE
    _parts = _HTTPX


class AsyncClient(Remembering, Plain, AwaitingSender, httpx.AsyncClient):  # type: ignore[misc]
    """The same for asyncio."""

    _parsed = _PARSED
    _unset = httpx.USE_CLIENT_DEFAULT
    _none = _NONE
    _parts = _HTTPX
