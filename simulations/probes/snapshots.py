"""The model after some of the rounds, kept beside a simulated run: what `decode` reads round by round."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

_CHECKPOINT: Final = "checkpoint.safetensors"
"""What a run holds after each completed round (`server/journal`)."""
_FOLDER: Final = "rounds"


def chosen(rounds: int) -> tuple[int, ...]:
    """Rounds to keep: 1, 2, 4, 8 and so on, without the last, which is the final model."""
    return tuple(2**k for k in range(rounds.bit_length()) if 2**k < rounds)


class Snapshots:
    """Told of every answer of a run; copies the checkpoint when a chosen round was completed.

    A round's checkpoint is on disk before the next round's first answer, and stays until that round is complete.
    """

    def __init__(self, out: Path, rounds: int) -> None:
        self._out = out
        self._wanted = set(chosen(rounds))

    def answered(self, step: int) -> None:
        """An answer came in round `step`: the round before is complete."""
        done, source = step - 1, self._out / _CHECKPOINT
        if done in self._wanted and source.is_file():
            self._wanted.discard(done)
            target = path_of(self._out, done)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)


def path_of(out: Path, number: int) -> Path:
    """Where the model after a round lies."""
    return out / _FOLDER / f"{number:04d}.safetensors"


def kept(out: Path) -> dict[int, Path]:
    """The rounds that were kept, in order."""
    return {int(path.stem): path for path in sorted((out / _FOLDER).glob("*.safetensors"))}
