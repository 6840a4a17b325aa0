"""Cookies that are looked for only in replies that set some.

For every reply httpx makes a request and a message of the standard library, to ask its cookie jar; between services
that finds nothing, and costs more than a third of httpx's own time. (httpx2 looks first, as is done here.)
"""

from __future__ import annotations

import httpx

from meshsdk.client.response import field_name

__all__ = ["Cookies", "SparingCookies"]


_SETTING = frozenset({b"set-cookie", b"set-cookie2"})


class SparingCookies:
    """Extracts cookies where there are any."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep the cookies that `response` sets."""
        if not _SETTING.isdisjoint(map(field_name, response.headers._list)):  # noqa: SLF001
            super().extract_cookies(response)  # type: ignore[misc]


class Cookies(SparingCookies, httpx.Cookies):
    """A client's cookies."""
