"""WADO-RS: a series as one stream of parts, or instance by instance; each goes to disk as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

import httpx

from client.pacs.arrivals import Arrivals
from client.pacs.failures import bad_answer, check_uid
from client.pacs.fetch import WEB, Target
from client.pacs.file_meta import instance_uid
from client.pacs.multipart import Broken, boundary_of, parts
from client.pacs.web import Web

_ACCEPT: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""As stored: without the star an archive re-encodes to explicit little endian (PS3.18 8.7.3.5.2)."""
_PIECE: Final = 2**18
_HEAD: Final = 2**14
"""Bytes in which the SOP instance UID of a file must stand."""
SLOW: Final = 10.0
"""Below so many instances a second an archive would wait long for us to read a stream: ask one by one."""


class WadoWay:
    """DICOMweb's retrieval."""

    name = WEB
    together = 1

    def __init__(self, web: Web, arrivals: Arrivals, rate: float) -> None:
        self._web = web
        self._arrivals = arrivals
        self.whole_series = rate >= SLOW

    def fetch(self, target: Target) -> None:
        """Read the stream of a series, or of each instance.

        Raises:
            PacsError: see `Way`.
            StorageError: the inbox cannot take more.
        """
        root = f"studies/{check_uid(self._web.name, target.study)}/series/{check_uid(self._web.name, target.series)}"
        if not target.instances:
            self._stream(root, target)
        for instance in target.instances:
            self._stream(f"{root}/instances/{check_uid(self._web.name, instance)}", target)

    def close(self) -> None:
        """Nothing to end: the client belongs to who made it."""

    def _stream(self, path: str, target: Target) -> None:
        with self._web.stream(path, _ACCEPT) as answer:
            boundary = boundary_of(answer.headers.get("Content-Type", ""))
            if boundary is None:
                raise bad_answer(self._web.name, "its WADO-RS answer is not multipart/related")
            try:
                for part in parts(_pieces(answer), boundary):
                    self._one(part, target)
            except Broken:
                raise bad_answer(self._web.name, "its WADO-RS answer is cut off or not multipart") from None

    def _one(self, part: Iterator[bytes], target: Target) -> None:
        head = bytearray()
        while len(head) < _HEAD and (piece := next(part, None)) is not None:
            head += piece
        instance = instance_uid(bytes(head[:_HEAD]))
        if not instance:
            raise bad_answer(self._web.name, "a part of its WADO-RS answer is not a DICOM file")
        if target.instances and instance not in target.instances:
            raise bad_answer(self._web.name, "it sent an instance that was not asked for")
        self._arrivals.put(target.study, target.series, instance, chain((bytes(head),), part))


def _pieces(answer: httpx.Response) -> Iterator[bytes]:
    return answer.iter_bytes(_PIECE)
