"""Cookies that are looked for only in replies that set some.

For every reply httpx makes a request and a message of the standard library, to ask its cookie jar; between services
that finds nothing, and costs more than a third of httpx's own time. (httpx2 looks first, as is done here.)
"""

from __future__ import annotations

import httpx

__all__ = ["Cookies", "SparingCookies"]


class SparingCookies:
    """Extracts cookies where there are any."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep the cookies that `response` sets."""
        if "set-cookie" in response.headers or "set-cookie2" in response.headers:
            super().extract_cookies(response)  # type: ignore[misc]


class Cookies(SparingCookies, httpx.Cookies):
    """A client's cookies."""
