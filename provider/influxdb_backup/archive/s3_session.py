"""How S3's client sends requests: as it does by itself, but it follows no redirect."""

from __future__ import annotations

import errno
from typing import Any
from urllib.parse import urljoin, urlsplit

from aiobotocore.httpsession import AIOHTTPSession

_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class RedirectError(OSError):
    """A store answered with a redirect; nothing was sent to where it leads."""

    def __init__(self, asked: str, target: str) -> None:
        super().__init__(errno.EIO, f"{place(asked)} answered with a redirect to {place(target)}")


class UnredirectedSession(AIOHTTPSession):  # type: ignore[misc]
    """
    A session that sends credentials to the store's own host only, and takes no other host's answer for the store's.

    aiohttp follows redirects, and keeps the header with the session token. A redirect ends in RedirectError here;
    one between hosts of AWS is handed to botocore, which does not follow it either: it looks up the region of the
    bucket and signs anew for the endpoint of that, which is no word of the reply's.
    """

    async def _get_session(self, proxy_url: str | None) -> _Unredirected:
        return _Unredirected(await super()._get_session(proxy_url))

    async def send(self, request: Any) -> Any:
        """As botocore's clients have it. Raises RedirectError."""
        reply = await super().send(request)
        if _origin(reply.url) != _origin(request.url):  # a client that no longer sends by _get_session
            raise RedirectError(request.url, reply.url)
        target = reply.headers.get("location")
        if reply.status_code in _REDIRECTS and target:
            target = urljoin(request.url, target)
            if not _both_of_aws(request.url, target):
                raise RedirectError(request.url, target)
        return reply


class _Unredirected:
    """The one verb of aiohttp's session that is used, without redirects."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, *arguments: Any, **options: Any) -> Any:
        return await self._session.request(*arguments, **{**options, "allow_redirects": False})


def place(url: str) -> str:
    """Scheme and host of a URL, without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _both_of_aws(asked: str, target: str) -> bool:
    hosts = [urlsplit(url) for url in (asked, target)]
    return any(all(host.scheme == "https" and (host.hostname or "").endswith(end) for host in hosts) for end in _AWS)
