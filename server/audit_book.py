"""The consortium's audit log as evidence: its own chain, the chains of its runs, and what every hospital swore."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common.audit import Head, read, verify
from common.audit_evidence import Evidence, Keys, Verdict, check
from common.audit_files import YEAR_S
from common.errors import StorageError
from common.messages import Witness
from common.types import Digest, SiteName
from common.witness import SERVER, kept
from server.federation_folder import AUDIT, Consortium
from server.sightings import ANCHOR, read_sighting, words_of


@dataclass(frozen=True)
class Whole:
    """A consortium whose logs are all whole."""

    consortium: Verdict
    runs: dict[str, int]
    """Run to the lines of its log."""


def evidence(consortium: Consortium, against: Iterable[Witness] = ()) -> Evidence:
    """The consortium's log with every word that lies here and those that were handed over."""
    roster = consortium.book.roster()
    members = {} if roster is None else {str(member.name): member.key for member in roster.members}
    words = [word for name in members for word in words_held(consortium, SiteName(name))]
    keys = Keys(consortium.identity.public, members)
    return Evidence(
        SERVER, consortium.name, consortium.folder / AUDIT, tuple(dict.fromkeys((*words, *against))), keys
    )


def words_held(consortium: Consortium, site: SiteName) -> list[Witness]:
    """What a member swore and the server keeps, oldest first.

    Raises:
        StorageError: it cannot be read.
    """
    roster = consortium.book.roster()
    key = None if roster is None else roster.key_of(site)
    if key is None:
        return []
    newest = read_sighting(consortium.folder, site).audit
    since = time.time() - consortium.settings.audit.keep_years * YEAR_S
    found = dict.fromkeys(kept(words_of(consortium.folder, site), key, since))
    # Kept before all words were: the newest alone.
    return [*found, *([newest] if newest is not None and newest not in found else [])]


def check_all(consortium: Consortium, against: Iterable[Witness] = ()) -> Whole:
    """The consortium's log, and the log of every run that it tells of.

    Raises:
        InputError, StorageError: as `common.audit_evidence.check`; `audit-truncated` when the log of a run is missing.
    """
    verdict = check(evidence(consortium, against))
    heads: dict[str, list[Head]] = defaultdict(list)
    for entry in read(consortium.folder / AUDIT):
        if entry["event"] == ANCHOR:
            fields = entry["fields"]
            heads[str(fields["run"])].append(Head(int(fields["count"]), Digest(fields["digest"])))
    logs = _logs(consortium.folder)
    return Whole(verdict, {run: _run(run, logs, known) for run, known in sorted(heads.items())})


def _run(run: str, logs: dict[str, Path], known: list[Head]) -> int:
    if run not in logs:
        raise StorageError(
            f"log of {run}", "it is missing", "Restore the run's folder from backup", code="audit-truncated"
        )
    return verify(logs[run], *known).count


def _logs(folder: Path) -> dict[str, Path]:
    """Run to its log, for every study's folder."""
    found = {}
    for path in sorted((folder / "runs").glob("*/audit.jsonl")):
        run = next((entry["fields"].get("run") for entry in read(path) if "run" in entry["fields"]), None)
        if run is not None:
            found[str(run)] = path
    return found
