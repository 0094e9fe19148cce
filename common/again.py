"""How soon Flower's processes try again what is away for a moment.

Flower doubles its pause with every try, up to twenty seconds. A SuperLink that takes ten to be started anew is then looked for up to
sixteen seconds after it is there again, each hospital at a time of its own, and a round waits for the last of them. Here no
pause is longer than five: a hundred hospitals knock some forty times a second while the consortium is away.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

LONGEST_S: Final = 5.0
RETRY: Final = "flwr.supercore.retry.http_retry"
"""Reads its longest pause anew with every first try."""


def sooner() -> None:
    """Have this process, and what is forked from it, try again within `LONGEST_S`."""
    module: Any = importlib.import_module(RETRY)
    module.MAX_RETRY_DELAY = LONGEST_S
