"""A node of Flower's that looks for questions and answers sooner.

Flower's SuperNode sleeps three seconds between two looks for a question, and half a second between two looks for the
courier's answer; in a short round that is most of the time. Here it looks five times a second while something is going
on, and less often the longer nothing was: never less than once a second. Flower has no setting for it; the source of the
loop is held to what is assumed here by `client.node.MOVED`. The courier's answer comes through this very process, which
tells the loop of it: a training of hours costs no looks.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any, Final

LOOP: Final = "flwr.supernode.start_client_internal"
ANSWER_S: Final = 0.5
"""Between two looks for the courier's answer where nothing was heard of it: Flower's own pause."""
SHORTEST_S: Final = 0.2
LONGEST_S: Final = 1.0
_SHARE: Final = 0.02
"""A pause is this share of the time since the last question: to wait costs at most two percent."""
_IDLE_S: Final = 3.0
"""Flower's own pause where there was no question; a shorter one is for an answer."""


class Clock:
    """The module `time` as the node's loop sees it, with shorter sleeps.

    Args:
        sleep: that really sleeps.
        wait: sleeps until something comes from the courier, at most so long.
    """

    def __init__(
        self, sleep: Callable[[float], None] = time.sleep, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._sleep = sleep
        self._wait = wait
        self._idle_s = 0.0

    def sleep(self, seconds: float) -> None:
        """Sleep at most as long as the loop asked for."""
        if seconds < _IDLE_S:
            self._idle_s = 0.0
            self._wait(min(seconds, ANSWER_S))
            return
        pause = min(max(_SHARE * self._idle_s, SHORTEST_S), LONGEST_S)
        self._idle_s += pause
        self._sleep(pause)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the module's."""
        return getattr(time, name)


def quicken(wait: Callable[[float], None]) -> None:
    """Have the SuperNode of this process look sooner.

    Args:
        wait: sleeps until something comes from the courier, at most so long.
    """
    loop: Any = importlib.import_module(LOOP)
    loop.time = Clock(wait=wait)
