"""The archive that tests of this folder speak with."""

from __future__ import annotations

from tests.orthanc import orthanc, orthanc_session

__all__ = ["orthanc", "orthanc_session"]
