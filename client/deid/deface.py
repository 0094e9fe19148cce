"""Head MR series without their faces, between the staging of an ingestion and its commit.

Only whole series can be defaced, so this waits until every file is staged. Each series is handed to a process of its
own (`client.deid.face`) with limits of time and memory. A series that may show a head and cannot be defaced goes to a
person; nothing of it reaches the store unless that person accepts it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

from client.deid.face import SUFFIX, undefaced
from client.deid.heads import shows_head
from client.files import storage_error
from common.errors import FileRefused, SettingsError, StorageError

CODE: Final = "113102"
"""Clean Recognizable Visual Features Option (PS3.16 CID 7050)."""
NEEDED: Final = ("deepbet", "quickshear")
TIME_LIMIT_S: Final = 300.0
"""Of one series; 5 to 10 s on one core, measured on 160 slices."""
MEMORY_BYTES: Final = 12 * 2**30
"""Of address space for one series; its networks take 1.3 GB of memory, measured."""


@dataclass(frozen=True)
class Staged:
    """One staged, de-identified MR file."""

    key: str
    path: Path
    series: str
    """Pseudonymous series UID."""
    waived: bool = False
    """Whether a person already accepted it as it is."""


@dataclass(frozen=True)
class Defaced:
    """What became of a file: the digest of what was written anew, or why it was not."""

    digest: str = ""
    refusal: FileRefused | None = None


def check_extra() -> None:
    """See that what defacing needs is installed; call it before anything is taken in.

    Raises:
        SettingsError: with the remedy.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            "deid.deface_head_mr",
            f"{' and '.join(missing)} cannot be found, and faces are removed by them",
            "Run pip install 'consilium[deface]', or set deface_head_mr = false in [deid] of site.toml",
        )


def deface_staged(staged: Sequence[Staged]) -> Mapping[str, Defaced]:
    """Remove the faces of all head series among staged files; by key, for those that changed or may not pass.

    A series whose header names another part of the body is left alone; one that names none is tried, and when no
    brain is found in it, waits for a person.

    Raises:
        StorageError: a file cannot be written; the files that were not yet replaced are as they were.
    """
    series: dict[str, list[Staged]] = {}
    for one in staged:
        series.setdefault(one.series, []).append(one)
    done: dict[str, Defaced] = {}
    for files in series.values():
        if not all(one.waived for one in files) and _may_be_head(files):
            done |= _series(files)
    return done


def deface_series(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Write the slices of one series anew without the face, durably, each in its own place; those that changed.

    Raises:
        FileRefused: `review-deface`; the files are as they were.
        StorageError: the disk is full or refuses.
    """
    answer = _ask([str(path) for path in paths])
    if answer.get("storage"):
        raise StorageError("staging", "the disk is full or refuses", "Free space, then repeat the command")
    if "changed" not in answer:
        raise undefaced(str(answer.get("refused") or "the process that removes it died or took too long"))
    changed = tuple(path for path in paths if path.name in set(answer["changed"]))
    try:
        for path in changed:
            path.with_name(path.name + SUFFIX).replace(path)
    except OSError as error:
        raise storage_error(error, "staging") from None
    return changed


def _series(files: Sequence[Staged]) -> dict[str, Defaced]:
    try:
        changed = set(deface_series([one.path for one in files]))
    except FileRefused as refusal:
        return {one.key: Defaced(refusal=refusal) for one in files if not one.waived}
    finally:
        for one in files:
            one.path.with_name(one.path.name + SUFFIX).unlink(missing_ok=True)
    return {one.key: Defaced(digest=_digest(one.path)) for one in files if one.path in changed}


def _may_be_head(files: Sequence[Staged]) -> bool:
    """Whether the series says so, or says nothing of the body part; and was not defaced before."""
    for one in files:
        try:
            ds = dcmread(one.path, stop_before_pixels=True)
        except (OSError, InvalidDicomError):
            return True
        codes = {str(item.CodeValue) for item in ds.get("DeidentificationMethodCodeSequence") or ()}
        part = str(ds.get("BodyPartExamined") or "")
        if CODE not in codes and (not part or shows_head(ds)):
            return True
    return False


def _ask(paths: list[str]) -> Mapping[str, Any]:
    """The answer of a process with limits; empty when it died or took too long."""
    home = str(Path(__file__).resolve().parents[2])
    where = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    task = json.dumps({"files": paths, "memory": MEMORY_BYTES}) + "\n"
    try:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "client.deid.face"],
            input=task.encode(),
            capture_output=True,
            timeout=TIME_LIMIT_S,
            env={**os.environ, **threads, "PYTHONPATH": where},
            check=False,
        )
        answer = json.loads(ended.stdout or b"{}")
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise storage_error(error, "staging") from None
