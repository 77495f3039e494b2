"""One web server's answers, whole, within a time and a size, or an error: plain blocking code.

Must not know what is asked for. Invariant: what a server can make us do is bounded: it sends us nowhere else, its
answer ends by the deadline (looked at whenever some of it came), and is no larger than the limit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3

ANSWER_LIMIT_BYTES = 4 << 20
_READ_BYTES = 64 << 10


class Response(NamedTuple):
    """What it said."""

    status: int
    text: str
    headers: Mapping[str, str]


class Web:
    """One server's; its connections are kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()
        if is_local(url):
            self._session.trust_env = False  # a proxy of this machine's cannot know what runs on it

    def get(self, path: str, asked: Mapping[str, str], seconds: float) -> Response:
        """Raises OSError."""
        return self._ask("GET", path, seconds, asked, None)

    def post(self, path: str, form: Mapping[str, str], seconds: float) -> Response:
        """Raises OSError."""
        return self._ask("POST", path, seconds, {}, form)

    def _ask(
        self, method: str, path: str, seconds: float, asked: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Response:
        ends = time.monotonic() + seconds
        url = f"{self._url}{path}"
        try:
            with self._session.request(
                method, url, params=asked, data=form, timeout=seconds, stream=True, allow_redirects=False
            ) as found:
                return Response(found.status_code, _read(found, ends).decode(), dict(found.headers))
        except urllib3.exceptions.HTTPError as error:
            raise OSError(str(error)) from error


def _read(found: requests.Response, ends: float) -> bytes:
    """What comes, as it comes: asked for a number of bytes, the library would wait for all of them."""
    body = bytearray()
    while data := found.raw.read1(_READ_BYTES, decode_content=True):
        body += data
        if len(body) > ANSWER_LIMIT_BYTES:
            raise OSError("it exceeds the limit")
        if time.monotonic() > ends:
            raise TimeoutError("timed out")
    return bytes(body)


def is_local(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
