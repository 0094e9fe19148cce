"""The process that touches untrusted files: little memory, no core dump, nothing on its screen.

It reads one line of JSON per file and answers with one line. Keys come over the same pipe, never by
argument or environment. Whatever a codec prints goes nowhere, because it may be patient text.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from pydicom.dataset import Dataset

from client.deid.deidentify import Deidentifier, encode, identity, mark
from client.deid.pixels import decode
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.verify import Wanted, check, identifiers
from client.files import storage_error
from client.index_rows import Percentiles
from client.intake.classes import check_class
from client.intake.outcome import ACCEPTED, Outcome, Task, modality_word, task_from, to_json
from client.intake.parse import MAX_FILE_BYTES, damaged, quiet, read, too_much
from client.intake.wrap import wrap
from client.preprocess import decode as in_units
from client.quality import QualityContext, pixel_digest
from client.quality import check as quality_check
from client.quality_tags import check_tags
from common.errors import FileRefused, StorageError

MEMORY_BYTES: Final = 2**30
"""On top of what the process needs when it starts."""


@dataclass
class Bench:
    """What a worker needs for every file; made once."""

    deidentifier: Deidentifier
    percentiles: Mapping[tuple[str, str], Percentiles] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Pseudonyms, percentiles: Mapping[tuple[str, str], Percentiles]) -> Bench:
        """A bench with the profile that comes with this release."""
        return cls(Deidentifier(built_in(), names), percentiles)

    def process(self, task: Task) -> Outcome:
        """Parse, de-identify, write, scan again, judge. Never raises for what a file holds.

        Raises:
            StorageError: the staged file cannot be written.
        """
        found: dict[str, Any] = {}
        try:
            with quiet():
                row = self._take(task, found)
        except FileRefused as refusal:
            return _refused(refusal, found)
        except (RecursionError, MemoryError):
            return _refused(too_much(), found)
        except StorageError:
            raise
        except Exception:  # noqa: BLE001 (an untrusted file can make a parser raise anything)
            return _refused(damaged(), found)
        return Outcome(ACCEPTED, row=row, **found)

    def _take(self, task: Task, found: dict[str, Any]) -> dict[str, Any]:
        source = _source(task)
        found["modality"] = modality_word(source.get("Modality"))
        found["keys"] = self._keys(source)
        found |= self._patient(source)
        check_class(source)
        wanted = identifiers(source)
        pixels = decode(source)
        target = self.deidentifier.apply(source, pixels)
        path = Path(task.staging) / f"{task.key}.dcm"
        found["digest"] = _write_checked(path, target, wanted)
        try:
            return self._row(source, target)
        except FileRefused:
            path.unlink(missing_ok=True)
            del found["digest"]
            raise

    def _keys(self, source: Dataset) -> dict[str, str]:
        names = self.deidentifier.names
        made = {
            "accession": (names.accession, source.get("AccessionNumber")),
            "study": (names.uid, source.get("StudyInstanceUID")),
            "instance": (names.uid, source.get("SOPInstanceUID")),
        }
        return {kind: name(str(value)) for kind, (name, value) in made.items() if value}

    def _patient(self, source: Dataset) -> dict[str, str]:
        """Whose file it is, so that it can be found when they withdraw even if it is refused."""
        names = self.deidentifier.names
        try:
            who = identity(source)
        except FileRefused:
            return {}  # refused for that later, if for nothing else before
        return {"patient": names.patient(who), "spend_key": names.spend_key(who)}

    def _row(self, source: Dataset, target: Dataset) -> dict[str, Any]:
        units = in_units(target)
        where = (str(target.Modality), str(target.DeviceSerialNumber))
        report = quality_check(units, QualityContext(*where, self.percentiles.get(where)))
        for verdict in (report, check_tags(target)):
            if not verdict.ok:
                raise FileRefused("an image", verdict.rule, verdict.remedy, code=verdict.code or "quality")
        names = self.deidentifier.names
        age = str(target.get("PatientAge", ""))[:3]
        return {
            "sop_uid": str(target.SOPInstanceUID),
            "patient": str(target.PatientID),
            "spend_key": names.spend_key(identity(source)),
            "study_uid": str(target.StudyInstanceUID),
            "series_uid": str(target.SeriesInstanceUID),
            "file": f"{target.PatientID}/{target.SOPInstanceUID}.dcm",
            "modality": where[0],
            "manufacturer": str(target.get("Manufacturer", "")),
            "model": str(target.get("ManufacturerModelName", "")),
            "scanner": where[1],
            "projection": str(target.get("ViewPosition", "")),
            "age": int(age) if age else None,
            "sex": str(target.get("PatientSex", "")),
            "rows": int(target.Rows),
            "cols": int(target.Columns),
            "quality": report.figures,
            "pixel_digest": pixel_digest(units),
        }


def _refused(refusal: FileRefused, found: Mapping[str, Any]) -> Outcome:
    return Outcome(refusal.code, refusal.rule, refusal.remedy, **found)


def _source(task: Task) -> Dataset:
    path = Path(task.path)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_FILE_BYTES else b""
    except OSError:
        raise FileRefused(
            "a file", "it cannot be read", "Check its rights and the disk it lies on", code="file-unreadable"
        ) from None
    if size > MAX_FILE_BYTES:
        raise FileRefused(
            "a file",
            f"it is larger than {MAX_FILE_BYTES >> 20} MiB",
            "Split or leave it out",
            code="file-size",
        )
    return read(data) if task.person is None else wrap(data, task.person)


def _write_checked(path: Path, target: Dataset, wanted: Wanted) -> str:
    """Scan; only then say that it is de-identified, write, read back and scan once more.

    Bytes that were not scanned never touch the disk, and the file takes its name last: a process that is
    killed anywhere leaves nothing that could be mistaken for it.

    Returns:
        SHA-256 of the file, in hexadecimal.
    """
    check(encode(target), wanted)
    mark(target)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    try:
        part.write_bytes(encode(target))
        written = part.read_bytes()
        check(written, wanted)
        part.replace(path)
    except OSError as error:
        raise storage_error(error, "staging") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return hashlib.sha256(written).hexdigest()


def limit_memory(extra_bytes: int) -> None:
    """Let this process grow by so many bytes and no more, and leave no core dump; where the system can."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        resource = importlib.import_module("resource")  # absent on some systems
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process when its parent is killed, so that it does not go on writing; on Linux."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(0)


def _private_pipe() -> TextIO:
    """The pipe to the parent; after this, whatever is printed in this process goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


def main() -> None:
    """Serve the parent until its pipe closes."""
    answers = _private_pipe()
    hello = json.loads(sys.stdin.readline())
    names = Pseudonyms(bytes.fromhex(hello["key"]), bytes.fromhex(hello["spend"]))
    bench = Bench.of(
        names,
        {
            (m, s): Percentiles(n, {k: (a, b) for k, (a, b) in d.items()})
            for m, s, n, d in hello["percentiles"]
        },
    )
    die_with_parent(int(hello["parent"]))
    limit_memory(int(hello["memory"]))
    answers.write("ready\n")
    for line in sys.stdin:
        try:
            answer = to_json(bench.process(task_from(line)))
        except StorageError as error:
            answer = to_json(Outcome(error.code, error.rule, error.remedy))
        answers.write(answer + "\n")


if __name__ == "__main__":
    main()
