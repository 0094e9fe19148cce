"""Both exports taken in: by the library, watched while it works, and by the hospital's own commands."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from client.deid.pseudonyms import Pseudonyms
from client.index import FileOutcome, ImageRow, Index
from client.intake.folder import list_files
from client.intake.ingest import ingest
from client.intake.labels import read_labels
from client.intake.report import IngestReport
from client.site import Site
from common.logs import configure
from tests.client.acceptance.corpus import Export, Nasty, write_dicom, write_pictures
from tests.client.intake_files import new_site

HERE = Path(__file__).parents[3]


@dataclass(frozen=True)
class Became:
    """What the index tells of one file."""

    nasty: Nasty = field(repr=False)
    code: str
    row: ImageRow | None = field(repr=False)


@dataclass
class Taken:
    """One hospital that took the exports in by the library, and one by its commands."""

    site: Site
    exports: tuple[Export, Export]
    reports: list[IngestReport] = field(default_factory=list)
    log: str = field(default="", repr=False)
    on_the_way: dict[str, bytes] = field(default_factory=dict, repr=False)
    """What lay in staging while the ingestion ran, by name."""
    commanded: Path = Path()
    printed: bytes = field(default=b"", repr=False)
    files: dict[str, Became] = field(default_factory=dict, repr=False)
    """By kind."""

    def again(self) -> list[IngestReport]:
        """Send everything once more."""
        return [ingest(self.site, export.folder, export.labels, workers=1) for export in self.exports]


def take_in(folder: Path) -> Taken:
    """Make the exports, two hospitals, and let each take them in."""
    exports = (write_dicom(folder / "export" / "dicom"), write_pictures(folder / "export" / "pictures"))
    taken = Taken(new_site(folder / "site"), exports)
    stream = io.StringIO()
    configure("DEBUG", stream)
    try:
        for one in exports:
            report = ingest(taken.site, one.folder, one.labels, workers=1, progress=_watch(taken))
            taken.reports.append(report)
    finally:
        logging.getLogger().handlers.clear()
    taken.log = stream.getvalue()
    taken.files = _files(taken)
    taken.commanded = folder / "commanded"
    taken.printed = _by_command(taken.commanded, exports)
    return taken


def _watch(taken: Taken) -> Callable[[int, int], None]:
    staging = taken.site.data / "staging"

    def look(done: int, _total: int) -> None:
        if done % 5 == 0:
            new = (p for p in staging.rglob("*") if p.is_file() and p.name not in taken.on_the_way)
            taken.on_the_way.update({path.name: path.read_bytes() for path in new})

    return look


def _by_command(folder: Path, exports: tuple[Export, Export]) -> bytes:
    """Everything that the hospital's commands print, also about a mistake: the name of a folder that is not there."""
    lines: list[list[object]] = [["init", "st-anna"]]
    for export, form in zip(exports, ((), ("--json",)), strict=True):
        lines.append(["ingest", export.folder, "--labels", export.labels, "--allow-unlabelled", *form])
    lines += [
        ["quarantine", "list"],
        ["quarantine", "list", "--json"],
        ["status"],
        ["deid", "explain"],
        ["ingest", exports[0].folder / "nowhere"],
    ]
    said = b""
    for line in lines:
        command = [sys.executable, "-m", "client.cli", *map(str, line), "--site", str(folder)]
        done = subprocess.run(command, capture_output=True, check=False, cwd=HERE)
        said += done.stdout + done.stderr
        if done.returncode and not str(line[-1]).endswith("nowhere"):
            raise RuntimeError(f"{line[0]}: {done.stderr.decode()}")
    return said


def _files(taken: Taken) -> dict[str, Became]:
    names = Pseudonyms.of(taken.site)
    found: dict[str, Became] = {}
    with Index(taken.site.index) as index:
        for export in taken.exports:
            listed = list_files(export.folder, export.labels, read_labels(export.labels))
            keys = {file.path: file.key(names) for file in listed}
            for one in export.files:
                outcome = index.file_outcome(keys[one.path]) or FileOutcome("lost")
                found[one.kind] = Became(one, outcome.code, index.image(outcome.sop_uid))
    return found
