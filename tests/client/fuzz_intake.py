"""Mutated real files through a limited worker, as an ingestion sends them; laws are checked file by file.

    python -m tests.client.fuzz_intake --mutations 100000 --seed 7
    python -m tests.client.fuzz_intake --seed 7 --only 4711 --write nasty.dcm

The second line replays one mutation that a failure names.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydicom import dcmread

from client.deid.pseudonyms import Pseudonyms
from client.deid.reader import Unreadable, walk
from client.deid.settings import DeidSettings
from client.deid.text.found import Decision
from client.intake.outcome import Outcome, Task, to_json
from client.intake.parse import quiet
from client.intake.pool import Limits, Pool, Setup
from tests.client.fuzz_mutations import CANARY, Source, mutate, shared, sources

CODES: Final = frozenset(
    [
        "accepted",
        "not-dicom",
        "parser-error",
        "parser-limit",
        "parser-crash",
        "deflate-bomb",
        "duplicate-element",
        "pixels-undecodable",
        "frames-inconsistent",
        "transfer-syntax",
        "patient-unknown",
        "head-ct",
        "lut-broken",
        "head-mr",
    ]
)
FAMILIES: Final = ("sop-class-", "pixel-", "deid-", "quality-", "review-")
"""Every answer is one of these codes, or of one of these families."""
LIMITS: Final = Limits(time_s=20.0)
NAMES: Final = Pseudonyms(b"k" * 32, b"s" * 32)
WAIVED: Final = Decision(
    waive=tuple(
        f"review-{why}"
        for why in ("derived", "ultrasound", "secondary-capture", "screen-save", "burned-in", "text")
    )
)
"""Every second file comes as if a person had let it out of review, so that it goes the whole way."""


def setup(*, search_text: bool) -> Setup:
    """Settings under which as many files as possible go the whole way."""
    deid = DeidSettings(
        derived_primary=("CR", "DX", "MG", "CT", "MR"),
        head_ct="accept",
        burned_in_text="find" if search_text else "ignore",
    )
    return Setup(NAMES, limits=LIMITS, deid=deid)


@dataclass
class Figures:
    """What became of the mutations, and every law that was broken."""

    codes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Mutations with an outcome."""
        return sum(self.codes.values())


def fuzz(
    numbers: Sequence[int], seed: int, folder: Path, files: Sequence[Source], *, search_text: bool = False
) -> Figures:
    """Send mutated files through worker processes and hold every answer to the laws.

    Args:
        numbers: of the mutations.
        seed: of all chance.
        folder: for files that come and go.
        files: what is mutated.
        search_text: whether pixels are searched for text too, which takes most of the time.
    """
    staging = folder / "staging"
    staging.mkdir(parents=True)
    figures, begun, done = Figures(), time.monotonic(), {}

    def tasks() -> Iterator[Task]:
        for number in numbers:
            data, done[number] = mutate(seed, number, files)
            path = folder / f"{number}.dcm"
            path.write_bytes(data)
            yield Task(
                number, str(path), f"{number:032x}", str(staging), decision=WAIVED if number % 2 else None
            )

    with Pool(setup(search_text=search_text), 1) as pool:
        for task, outcome in pool.run(tasks()):
            figures.codes[outcome.code] += 1
            what = f"seed {seed} mutation {task.number} ({done.pop(task.number)})"
            figures.broken += [f"{what}: {law}" for law in broken(outcome, staging / f"{task.key}.dcm")]
            _clear(folder, staging, task)
    figures.seconds = time.monotonic() - begun
    return figures


def broken(outcome: Outcome, kept: Path) -> list[str]:
    """The laws that an answer, and what was written for it, break."""
    found = []
    if outcome.code not in CODES and not outcome.code.startswith(FAMILIES):
        found.append(f"the code {outcome.code} is on no list")
    if CANARY.casefold() in to_json(outcome).casefold():
        found.append("the canary is in the answer")
    if not outcome.accepted:
        return [*found, *(["something refused was written"] if kept.exists() else [])]
    return [*found, *unsound(kept.read_bytes())]


def unsound(data: bytes) -> list[str]:
    """What is wrong with a de-identified file: the canary, or bytes that a reader cannot walk."""
    found = ["the canary was kept"] if CANARY.casefold().encode() in data.lower() else []
    try:
        list(walk(data))
    except Unreadable as error:
        found.append(f"our reader: {error}")
    try:
        with quiet():
            ds = dcmread(io.BytesIO(data))
            for element in ds.iterall():
                str(element.value)
            if not ds.pixel_array.size:
                found.append("no pixels")
    except Exception as error:  # noqa: BLE001 (whatever another reader raises breaks the law)
        found.append(f"pydicom: {type(error).__name__}")
    return found


def _clear(folder: Path, staging: Path, task: Task) -> None:
    Path(task.path).unlink()
    for path in (staging / f"{task.key}.dcm", staging / f"{task.key}.bin"):
        path.unlink(missing_ok=True)
    for path in staging.glob(f"*{task.key}*"):
        path.unlink()


def main() -> None:
    """Fuzz, or write one mutation to look at; ends with status 1 when a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--text", action="store_true", help="search pixels for text too")
    parser.add_argument("--only", type=int, help="number of the one mutation to write")
    parser.add_argument("--write", type=Path, help="where to write it")
    asked = parser.parse_args()
    files = sources(shared())
    if asked.only is not None:
        data, what = mutate(asked.seed, asked.only, files)
        (asked.write or Path("mutation.dcm")).write_bytes(data)
        sys.stdout.write(what + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = fuzz(range(asked.mutations), asked.seed, Path(folder), files, search_text=asked.text)
    sys.stdout.write(f"{figures.total} mutations of {len(files)} files in {figures.seconds:.0f} s\n")
    sys.stdout.write("".join(f"{count:7d} {code}\n" for code, count in figures.codes.most_common()))
    sys.stdout.write("".join(f"BROKEN {law}\n" for law in figures.broken))
    sys.exit(bool(figures.broken))


if __name__ == "__main__":
    main()
