"""Networks, their losses and their metrics.

The doors are `build`, `get_arrays`, `set_arrays`, `architecture_digest` and `dp_problems`. They are
loaded on first use, so that `common.models.metrics` (numpy only) can be imported by a process that
must never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.models.arrays import architecture_digest, get_arrays, set_arrays
    from common.models.network import Network
    from common.models.registry import build
    from common.models.safety import dp_problems

__all__ = ["Network", "architecture_digest", "build", "dp_problems", "get_arrays", "set_arrays"]

_HOME = {
    "Network": "network",
    "architecture_digest": "arrays",
    "build": "registry",
    "dp_problems": "safety",
    "get_arrays": "arrays",
    "set_arrays": "arrays",
}


def __getattr__(name: str) -> Any:
    """Load a door from its module the first time it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
