"""What methods keep at a site from round to round: one file a run and round, in the site's state.

1. A file is written whole, and before the update of its round can leave.
2. A round begins from the newest file of a round before it, never from its own: trained again after a crash, it
   begins where it began the first time.
3. The two newest rounds of a run are kept. A run is erased when its own model was saved (`erase`), and the oldest
   when there are more than `RUNS`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from client.files import storage_error
from common import checkpoints
from common.checkpoints import Checkpoint
from common.types import Arrays, Digest, RunId

RUNS: Final = 3
_ROUNDS: Final = 2
FOLDER: Final = "methods"


class Memory:
    """What one run's methods keep at one site.

    Args:
        state: the site's state folder.
        run: which run; its name was checked at the service's gate.
    """

    def __init__(self, state: Path, run: RunId) -> None:
        self._all = state / FOLDER
        self._run = run

    def before(self, round_: int) -> Arrays:
        """What was kept of the newest round before this one; nothing where none was.

        Raises:
            StorageError: the file is not the one that was written.
        """
        found = [n for n in self._rounds() if n < round_]
        return checkpoints.load(self._path(max(found))).arrays if found else {}

    def newest(self) -> Arrays:
        """What was kept of the newest round; nothing where none was."""
        return self.before(max(self._rounds(), default=0) + 1)

    def keep(self, round_: int, arrays: Arrays, plan: Digest) -> None:
        """Put on disk what a round leaves; on disk when this returns.

        Raises:
            StorageError: no room, or no rights.
        """
        kept = Checkpoint(self._run, round_, plan, Digest(""), arrays)
        checkpoints.save(kept, self._path(round_))
        for old in sorted(n for n in self._rounds() if n <= round_)[:-_ROUNDS]:
            self._path(old).unlink(missing_ok=True)
        self._forget_others()

    def erase(self) -> None:
        """Remove everything of this run.

        Raises:
            StorageError: it cannot be removed.
        """
        _remove(self._all / self._run)

    def _forget_others(self) -> None:
        others = (f for f in self._all.iterdir() if f.is_dir() and f.name != self._run)
        for folder in sorted(others, key=lambda f: f.stat().st_mtime_ns, reverse=True)[RUNS - 1 :]:
            _remove(folder)

    def _rounds(self) -> list[int]:
        found = (self._all / self._run).glob("*.safetensors")
        return [int(path.stem) for path in found if path.stem.isdigit()]

    def _path(self, round_: int) -> Path:
        return self._all / self._run / f"{round_}.safetensors"


def _remove(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise storage_error(error, "what methods kept of a run") from None
