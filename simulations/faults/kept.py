"""What was measured of faults so far, in one file: a case that fails or a machine that stops loses no other.

A case that is in the file and was well is not measured again; who wants that removes the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from common.checkpoints import write_whole
from common.errors import InputError
from simulations.faults.cases import Fault
from simulations.faults.hung import Hung
from simulations.faults.matrix import Happened
from simulations.faults.wrong import CASES, Outcome

HUNG: Final = "hung"
"""The case of a hospital that hangs."""


@dataclass
class Kept:
    """Each case by its name, as it was measured last."""

    happened: dict[str, Happened] = field(default_factory=dict)
    wrong: dict[str, Outcome] = field(default_factory=dict)
    hung: Hung | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Of wrong answers and who hung: why there is no figure."""

    def rows(self, faults: Sequence[Fault]) -> list[Happened]:
        """Those of these faults that were measured, in this order."""
        return [self.happened[fault.name] for fault in faults if fault.name in self.happened]

    def outcomes(self) -> list[Outcome]:
        """The wrong answers that were measured."""
        return [self.wrong[name] for name in CASES if name in self.wrong]

    def has(self, name: str) -> bool:
        """Whether this case was measured and was well."""
        if name in self.happened:
            return self.happened[name].well
        if name in self.wrong:
            return self.wrong[name].well
        return name == HUNG and self.hung is not None and self.hung.well

    @property
    def unwell(self) -> list[str]:
        """Cases that were measured and must be mended."""
        there = [*self.happened, *self.wrong, *([HUNG] if self.hung else []), *self.failed]
        return [name for name in dict.fromkeys(there) if not self.has(name)]


_ADAPTER: Final[TypeAdapter[Any]] = TypeAdapter(Kept)


def read_kept(path: Path | None) -> Kept:
    """What the file holds; nothing where there is none.

    Raises:
        InputError: when it is not one of ours.
    """
    if path is None or not path.exists():
        return Kept()
    try:
        found: Kept = _ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise InputError(
            path.name, "it holds no measured faults", "Remove it, or name another file"
        ) from None
    return found


def write_kept(kept: Kept, path: Path | None) -> None:
    """Put it on disk; nothing without a path."""
    if path is not None:
        write_whole(path, json.dumps(asdict(kept), indent=1).encode())
