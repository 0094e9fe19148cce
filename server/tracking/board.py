"""TensorBoard's event files, one for each completed round, whole or not there.

<folder>/<study>/events.out.tfevents.00000003.consilium           the third round
<folder>/<study>-subset/events.out.tfevents.00000004.consilium    from here on sites that were expected are missing

A round is told once: its file's name is its number, so nothing else has to be remembered. Nothing here reaches for a
network; whoever looks starts `tensorboard --logdir` on the folder.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any, Final

from common.errors import SettingsError, StorageError
from server.tracking.figures import Step, Story

SUBSET: Final = "-subset"


class Board:
    """The folder that TensorBoard reads.

    Raises:
        SettingsError: code `tracking-missing` when TensorBoard's writer is not installed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = library()

    def tell(self, told: Story) -> None:
        """Write what is new.

        Raises:
            StorageError: the folder cannot be written.
        """
        try:
            for step in told.steps:
                place = self._folder / (told.study + (SUBSET if step.subset else ""))
                name = f"events.out.tfevents.{step.round + step.final:08d}{'.final' * step.final}.consilium"
                if not (place / name).exists():
                    self._write(place / name, step)
        except OSError:
            raise StorageError(
                "tracking.tensorboard", "its folder cannot be written", "Check free space and rights"
            ) from None

    def _write(self, path: Path, step: Step) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".consilium-", dir=self._folder) as made:
            writer = self._library.Writer(made)
            for tag, value in step.values.items():
                writer.add_scalar(tag, value, step.round, wall_time=step.at)
            writer.close()
            (events,) = Path(made).iterdir()
            events.replace(path)


def library() -> Any:
    """TensorBoard's own writer, which needs neither TensorFlow nor torch.

    Raises:
        SettingsError: code `tracking-missing`.
    """
    try:
        return importlib.import_module("tensorboard.summary")
    except ImportError:
        raise SettingsError(
            "tracking.tensorboard",
            "TensorBoard is not installed beside the server",
            'Install it with pip install "consilium[tracking]" (containers, bundle: EXTRAS=tracking), or take the key out of server.toml',
            code="tracking-missing",
        ) from None
