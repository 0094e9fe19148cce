"""The tools that are timed, each started as a process of its own and timing only its work.

    python -m simulations.benchmarks.contenders NAME SOURCE TARGET [CORES]

takes in every file of SOURCE on CORES (0,1), writes to TARGET and prints wall and CPU seconds, its child processes' included.
Each peer is used by its library, in its fastest fair way: read, anonymise, write, one file after another.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

Work = Callable[[Path, Path], None]


def consilium(source: Path, target: Path, *, workers: int = 1, text: str = "ignore") -> None:
    """All of this project's intake, from the folder to the committed index."""
    from client.intake.ingest import ingest  # noqa: PLC0415 (a process imports its own contender only)
    from client.site import init_site, load_site  # noqa: PLC0415 (a process imports its own contender only)

    init_site(target / "site", "bench")
    toml = target / "site" / "site.toml"
    toml.write_text(toml.read_text(encoding="utf-8") + f'\n[deid]\nburned_in_text = "{text}"\n', "utf-8")
    report = ingest(load_site(target / "site"), source, None, workers=workers)
    if report.accepted != report.received:
        raise SystemExit(f"only {report.accepted} of {report.received}: {report.refused}")


def consilium_two(source: Path, target: Path) -> None:
    """The same with two workers."""
    consilium(source, target, workers=2)


def consilium_text(source: Path, target: Path) -> None:
    """The same with one worker, and the search for text in the pixels."""
    consilium(source, target, text="find")


def dicognito(source: Path, target: Path) -> None:
    """Its class Anonymizer, one for all files, as its documentation shows."""
    from dicognito.anonymizer import Anonymizer  # noqa: PLC0415 (a process imports its own contender only)
    from pydicom import dcmread  # noqa: PLC0415 (a process imports its own contender only)

    anonymizer = Anonymizer()
    for path in sorted(source.iterdir()):
        with dcmread(path) as dataset:
            anonymizer.anonymize(dataset)
            dataset.save_as(target / path.name)


def dicom_anonymizer(source: Path, target: Path) -> None:
    """Its `anonymize_dataset` under the newest table it carries, with private elements deleted."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file  # noqa: PLC0415 (a process imports its own contender only)

    for path in sorted(source.iterdir()):
        anonymize_dicom_file(str(path), str(target / path.name))


CONTENDERS: Final[dict[str, Work]] = {
    "consilium": consilium,
    "consilium-two": consilium_two,
    "consilium-text": consilium_text,
    "dicognito": dicognito,
    "dicom-anonymizer": dicom_anonymizer,
}


def main() -> None:
    """Time one contender on one folder."""
    name, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if len(sys.argv) > 4:
        os.sched_setaffinity(0, {int(core) for core in sys.argv[4].split(",")})
    before, begun = _cpu(), time.perf_counter()
    CONTENDERS[name](source, target)
    wall = time.perf_counter() - begun
    sys.stdout.write(json.dumps({"wall_s": wall, "cpu_s": _cpu() - before}) + "\n")


def _cpu() -> float:
    """User and system seconds of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
