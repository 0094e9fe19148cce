"""Files worked on in this process, for virtual hospitals alone: nobody has to be kept from what they hold.

A real hospital's files are foreign, and each is read in a limited process (`client.intake.pool`). To start one takes a
second, and a simulation would pay for it a thousand times; what is done with a file is the same to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from client.intake.bench import Bench
from client.intake.hand import Answer, Setup
from client.intake.outcome import Outcome, Task, outcome_from, to_json
from client.site import Site
from common.errors import SettingsError, StorageError


class Here:
    """In the place of a `Pool`.

    Args:
        site: a virtual one.
        setup: as a pool's; its limits are of no effect.

    Raises:
        SettingsError: the hospital is real.
    """

    def __init__(self, site: Site, setup: Setup) -> None:
        if not site.simulated:
            raise SettingsError(
                "workers", "files of a real hospital are read in processes of their own", "Use 1 or more"
            )
        self._bench = Bench.of(json.loads(setup.hello()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was begun that would have to end."""

    def answers(self, tasks: Iterable[Task]) -> Iterator[Answer]:
        """Each task with its outcome, in their order."""
        for task in tasks:
            try:
                outcome = self._bench.process(task)
            except StorageError as error:
                outcome = Outcome(error.code, error.rule, error.remedy)
            line = to_json(outcome)
            yield Answer(task, outcome_from(line), line)  # as it would have come from a worker
