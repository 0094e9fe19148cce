"""The archive that tests of this folder speak with."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from tests.client.pacs.listening import SOCKETS
from tests.orthanc import orthanc, orthanc_session

__all__ = ["orthanc", "orthanc_session"]


@pytest.fixture(autouse=True)
def _sockets_of_senders() -> Iterator[None]:
    """pynetdicom's sender does not close a socket that the other side closed first; our own are of other classes."""
    yield
    while SOCKETS:
        SOCKETS.pop().close()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"unclosed <(socket\.socket|ssl\.SSLSocket)", ResourceWarning)
        gc.collect()
