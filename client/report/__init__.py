"""The hospital's own report, which stays in the hospital.

The doors are `build`, `write_site_report` and `gradcam`; they are loaded on first use, so that importing
this package costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from client.report.cam import gradcam
    from client.report.compose import build
    from client.report.data import SiteReportData
    from client.report.page import write_site_report

__all__ = ["SiteReportData", "build", "gradcam", "write_site_report"]

_HOME = {"SiteReportData": "data", "build": "compose", "gradcam": "cam", "write_site_report": "page"}


def __getattr__(name: str) -> Any:
    """Load a door from its module the first time it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
