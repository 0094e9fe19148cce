"""Names in the names of files and folders; and files that come as something else than they say."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import Final

from tests.client.acceptance.case import Canary, Case, base
from tests.client.intake_files import to_bytes


def plain(canary: Canary) -> bytes:
    """The honest image."""
    return to_bytes(base(canary))


def page(canary: Canary) -> bytes:
    """What a web archive answers when the session has ended."""
    return f"<html><title>PACS</title>Logged out: Dr. {canary.word}</html>".encode()


def zipped(canary: Canary) -> bytes:
    """An archive of files under the suffix of one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"../../{canary.word}.dcm", plain(canary))
    return buffer.getvalue()


def cut(canary: Canary) -> bytes:
    """The image ends in the middle of its pixels."""
    return plain(canary)[:-2000]


def without_head(canary: Canary) -> bytes:
    """A data set without preamble and file meta."""
    return plain(canary)[132:]


CASES: Final = (
    Case("name of a file", "the file's name", plain, name="{word}_{born:%Y%m%d}.dcm"),
    Case("names of folders", "two folders above the file", plain, name="{word}, Eva/{digits}/IM0001"),
    Case("page", "HTML under the suffix of DICOM", page, outcome="not-dicom", labelled=False),
    Case("zip", "an archive whose member climbs out", zipped, outcome="not-dicom", labelled=False),
    Case(
        "gzip", "a compressed image", lambda c: gzip.compress(plain(c)), outcome="not-dicom", labelled=False
    ),
    Case("cut", "pixels that end too early", cut, outcome="pixel-truncated"),
    Case("no file meta", "a data set alone", without_head, outcome="not-dicom", labelled=False),
)
