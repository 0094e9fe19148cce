"""HTTP to an archive, for DICOMweb and for Orthanc's REST: one client, and every failure named."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

import httpx

from client.pacs.failures import bad_answer, lost, timed_out, tls_failed, unreachable
from client.pacs.remote import Caller, client_tls
from common.errors import PacsError

CONNECT_S: Final = 10.0
READ_S: Final = 60.0
MAX_JSON_BYTES: Final = 256 * 2**20
DICOM_JSON: Final = "application/dicom+json"
Query = Mapping[str, str | list[str]]
"""A list stands for the same key several times."""


class Web:
    """A client of one root URL; use it as a context manager."""

    def __init__(self, caller: Caller, root: str, where: str) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            caller: the remote.
            root: URL without a slash at its end.
            where: DICOMweb or REST, for errors.

        Raises:
            SettingsError: a certificate file is not usable.
        """
        self.name = caller.name
        self._where = where
        self._root = root.rstrip("/")
        self._client = httpx.Client(
            auth=(caller.user, caller.password) if caller.user else None,
            verify=client_tls(caller) if self._root.startswith("https:") else True,
            timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        )

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self._client.close()

    def json(self, path: str, query: Query | None = None, accept: str = "application/json") -> Any:
        """GET something in JSON; HTTP 204 (QIDO: no match) is an empty list.

        Raises:
            PacsError: see `client.pacs.failures`.
        """
        data = bytearray()
        with self.stream(path, accept, query) as answer:
            if answer.status_code == httpx.codes.NO_CONTENT:
                return []
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > MAX_JSON_BYTES:
                    raise bad_answer(self.name, f"its {self._where} answer is too long")
        try:
            return json.loads(data)
        except ValueError:
            raise bad_answer(self.name, f"its {self._where} answer is not JSON") from None

    @contextmanager
    def stream(self, path: str, accept: str, query: Query | None = None) -> Iterator[httpx.Response]:
        """GET something of any length; the body is read inside the block.

        Raises:
            PacsError: also for what happens while the body is read.
        """
        try:
            with self._client.stream(
                "GET", f"{self._root}/{path}", params=query or None, headers={"Accept": accept}
            ) as answer:
                if not answer.is_success:
                    raise self._status(answer.status_code)
                yield answer
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise self._translated(error) from None

    def _translated(self, error: Exception) -> PacsError:
        if isinstance(error, httpx.ProxyError):
            return PacsError(
                f"remote {self.name}",
                "the proxy does not let us through",
                "Name the archive's host in NO_PROXY, or correct HTTP_PROXY and HTTPS_PROXY",
                code="pacs-proxy",
            )
        if isinstance(error, httpx.TimeoutException):
            return timed_out(self.name, self._where)
        if isinstance(error, httpx.ConnectError):
            return (
                tls_failed(self.name, self._where) if _is_tls(error) else unreachable(self.name, self._where)
            )
        if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol)):
            return bad_answer(self.name, f"its {self._where} address is not a URL with http or https")
        return tls_failed(self.name, self._where) if _is_tls(error) else lost(self.name, self._where)

    def _status(self, status: int) -> PacsError:
        rule, remedy, code = _STATUS.get(
            status,
            (
                f"answered with HTTP {status}",
                "Look in the archive's log for the reason",
                "pacs-server" if status >= 500 else "pacs-answer",
            ),
        )
        return PacsError(f"remote {self.name}", f"its {self._where} {rule}", remedy, code=code)


_STATUS: Final = {
    401: (
        "does not accept user and password (HTTP 401)",
        "Correct `user` and the file of `password_file` in this remote",
        "pacs-auth",
    ),
    403: (
        "does not allow this to our user (HTTP 403)",
        "Let the archive's administrator allow it",
        "pacs-forbidden",
    ),
    404: (
        "has nothing at this address (HTTP 404)",
        "Check the root URL in this remote; a study may have been deleted meanwhile",
        "pacs-missing",
    ),
    407: ("lies behind a proxy that wants a password (HTTP 407)", "Name its host in NO_PROXY", "pacs-proxy"),
}


def _is_tls(error: BaseException) -> bool:
    """Whether a TLS error lies at the root of this one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
