"""Where the real data for tests lies, when it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """The folder of a real data set, or a skip that says what is missing."""
    folder = Path(os.environ.get("CONSILIUM_TEST_DATA", _DEFAULT)) / name
    if not folder.is_dir():
        pytest.skip(f"real data set {name} is not on this machine (set CONSILIUM_TEST_DATA)")
    return folder
