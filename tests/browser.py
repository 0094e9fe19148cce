"""The browser that tests look at reports with; on CI its absence is a failure, elsewhere a skip with its reason."""

from __future__ import annotations

import os
import shutil

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Path of a Chromium, or a skip; with CI=true a failure, so that CI never skips quietly."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    reason = "no chromium on this machine (Debian: apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
