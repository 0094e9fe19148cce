"""Telling the configured trackers of every study, beside the rounds and never in their way.

A process of its own (`consilium-server track`, kept running by `start`) reads the runs' folders as the dashboard does. A
tracker that does not answer is asked again; a round knows nothing of it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from common.errors import ConsiliumError, StorageError
from common.logs import Log
from server.federation_folder import Consortium
from server.runs import studies
from server.tracking.board import Board, library
from server.tracking.figures import Story, story
from server.tracking.mlflow import Mlflow

_EVERY_S: Final = 2.0
_PAUSES_S: Final = (2.0, 5.0, 15.0, 60.0)
_LOG: Final = Log("server.tracking")


class Tracker(Protocol):
    """Whoever is told."""

    def tell(self, told: Story) -> None:
        """Tell what is new of a study; a `ConsiliumError` means that it is to be told again."""


def command(consortium: Consortium) -> list[str]:
    """The process that follows the studies, as a part of `consilium-server start`."""
    program = [sys.executable, "-m", "server.cli", "track", "--follow"]
    return [*program, "--folder", str(consortium.folder)]


def wanted(consortium: Consortium) -> bool:
    """Whether a tracker is configured.

    Raises:
        SettingsError: code `tracking-missing` when what it needs is not installed.
    """
    settings = consortium.settings.tracking
    if settings.tensorboard:
        library()
    return bool(settings.tensorboard or settings.mlflow)


def trackers(consortium: Consortium) -> dict[str, Tracker]:
    """The configured ones, by name.

    Raises:
        SettingsError: a library or a secret is missing.
    """
    settings, found = consortium.settings.tracking, dict[str, Tracker]()
    if settings.tensorboard:
        found["tensorboard"] = Board(consortium.folder / settings.tensorboard)
    if settings.mlflow:
        secret = consortium.folder / settings.mlflow_secret_file if settings.mlflow_secret_file else None
        found["mlflow"] = Mlflow(settings.mlflow, settings.experiment or consortium.name, secret)
    return found


def tell_all(folder: Path, tracker: Tracker) -> int:
    """Tell one tracker of every study that has begun.

    Returns:
        How many studies that were.

    Raises:
        ConsiliumError: the tracker's own.
    """
    homes = [folder / "runs" / study.name for study in studies(folder)]
    begun = [home for home in homes if _stamp(home)]
    for home in begun:
        tracker.tell(story(home))
    return len(begun)


class Follower:
    """One tracker, told again and again; `tick` is called often.

    Args:
        folder: the consortium's.
        name: of the tracker, for the log.
        tracker: whoever is told.
        clock: seconds that only grow.
    """

    def __init__(
        self, folder: Path, name: str, tracker: Tracker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._name = name
        self._tracker = tracker
        self._clock = clock
        self._told: dict[str, tuple[int, ...]] = {}
        self._failures = 0
        self._due = 0.0

    def tick(self) -> None:
        """Tell what changed since the last time; after a failure only once a pause is over."""
        if self._clock() < self._due:
            return
        try:
            for study in studies(self._folder):
                self._tell(self._folder / "runs" / study.name)
        except ConsiliumError as error:
            self._due = self._clock() + _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
            self._failures += 1
            _LOG.warning("tracking.failed", kind=self._name, code=error.code)
        else:
            self._failures = 0

    def _tell(self, home: Path) -> None:
        stamp = _stamp(home)
        if not stamp or self._told.get(home.name) == stamp:
            return
        try:
            told = story(home)
        except StorageError:
            # A damaged record must not keep the other studies from being told; it is looked at when it changes.
            _LOG.warning("tracking.unread", kind=self._name, study=home.name)
        else:
            self._tracker.tell(told)
        self._told[home.name] = stamp


def follow(consortium: Consortium, go_on: Callable[[], bool] = lambda: True) -> None:
    """Tell every configured tracker until `go_on` says no.

    Raises:
        SettingsError: as `trackers`.
    """
    told = [Follower(consortium.folder, name, one) for name, one in trackers(consortium).items()]
    while go_on():
        for follower in told:
            follower.tick()
        time.sleep(_EVERY_S)


def _stamp(home: Path) -> tuple[int, ...]:
    """Of the files that a record is read from; empty before a run has begun."""
    found: tuple[int, ...] = ()
    for name in ("federation.json", "checkpoint.safetensors"):
        with suppress(OSError):
            found += ((home / name).stat().st_mtime_ns,)
    return found
