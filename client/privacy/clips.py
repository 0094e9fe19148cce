"""Where an adaptive clip was left: the next round of the same run begins there, in whichever process it is.

`<state>/clips.json`, run to C. It is known from what was released, so that it tells nothing more of anybody.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from common.checkpoints import write_whole
from common.errors import StorageError
from common.types import RunId

NAME: Final = "clips.json"
_RUNS: Final = 20
"""Runs that are remembered, the newest."""


class Clips:
    """The file of one site."""

    def __init__(self, state: Path) -> None:
        self._path = state / NAME

    def of(self, run: RunId) -> float | None:
        """Where this run left its clip; None where it never adapted one.

        Raises:
            StorageError: the file cannot be read.
        """
        return self._read().get(run)

    def keep(self, run: RunId, clip: float) -> None:
        """Write down where it was left.

        Raises:
            StorageError: the file cannot be read or written.
        """
        known = self._read()
        known.pop(run, None)
        known[run] = clip
        newest = dict(list(known.items())[-_RUNS:])
        write_whole(self._path, json.dumps(newest).encode())

    def _read(self) -> dict[str, float]:
        try:
            return {str(run): float(clip) for run, clip in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError):
            raise StorageError(NAME, "it cannot be read", "Move it away; clips begin anew then") from None
