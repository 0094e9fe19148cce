"""Receipts in the hospital's audit log: of every ingestion, and of every study whose fate it changed.

A study's receipt is promised before the index is told and delivered after; whoever was killed in between is
served by the next ingestion. So none is missing; one that was killed while it delivered may deliver twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.deid.methods import methods
from client.deid.tighten import effective
from client.files import storage_error, whole_file
from client.intake.report import IngestReport
from client.site import Site
from common.audit import AuditLog, read, verify

if TYPE_CHECKING:
    from client.index import Index
    from client.intake.outcome import Outcome
    from client.intake.process import Finished

_REFUSED: Final = "ingest.refused"
_DONE: Final = "ingest.done"
STUDY: Final = "ingest.study"
ACTIONS: Final = (
    "kept",
    "pseudonym",
    "uid",
    "shifted",
    "generalised",
    "emptied",
    "entered",
    "removed",
    "private_removed",
    "other",
)
"""What may have been done to an element; `other` is what this release has no word for."""
AGREED: Final = "agreed"
STOPPED: Final = "stopped"
NO_IMAGE: Final = "no-image"
SEARCHED: Final = "text-searched"
NOT_SEARCHED: Final = "text-not-searched"
_VERIFY: Final = "deid-verify"
"""Begins the codes by which the second scan refuses."""


@dataclass(frozen=True)
class Receipt:
    """One ingestion as the audit log tells it; no name, no number of a patient."""

    time: str
    """UTC, ISO 8601."""
    files: int
    """Received."""
    images: int
    """New in the index; the rest of the files was known or refused."""
    refused: dict[str, int]
    """Reason code to number of files."""
    profile: str
    """Digest of the de-identification profile that was applied."""
    methods: tuple[str, ...]
    """Codes of PS3.16 CID 7050: what de-identification did."""


def receipt(site: Site, report: IngestReport) -> None:
    """Write one line for the ingestion, after one for each reason why files were refused.

    Raises:
        StorageError: the log cannot be written.
    """
    log = AuditLog(site.audit)
    for code, count in sorted(report.refused.items()):
        log.append(_REFUSED, code=code, count=count)
    profile = effective(site.deid, site.tighten)
    usual = methods(site.deid, blanked=False, searched=False, defaced=False, profile=profile)
    log.append(
        _DONE,
        files=report.received,
        images=report.accepted,
        count=sum(report.refused.values()),
        patients=report.patients,
        digest=profile.digest,
        version="/".join(usual),
    )


def last_receipt(site: Site) -> Receipt | None:
    """The receipt of the last ingestion, or None before the first."""
    refused: dict[str, int] = {}
    found: Receipt | None = None
    for entry in read(site.audit):
        fields: dict[str, Any] = entry["fields"]
        if entry["event"] == _REFUSED:
            refused[str(fields["code"])] = int(fields["count"])
        elif entry["event"] == _DONE:
            methods = tuple(str(fields["version"]).split("/"))
            digest = str(fields["digest"])
            found = Receipt(entry["time"], fields["files"], fields["images"], refused, digest, methods)
            refused = {}
    return found


@dataclass(frozen=True)
class StudyReceipt:
    """What one ingestion, or one release, did to one study; no name, no number of a patient."""

    time: str
    """UTC, ISO 8601."""
    study: str
    """The study's UID in the store, which is keyed."""
    files: int
    """Whose fate changed."""
    images: int
    """Taken in."""
    refused: int
    actions: dict[str, int]
    """Elements by what was done to them, over the images taken in; see `ACTIONS`."""
    blanked: int
    """Places in the pixels that were blanked."""
    profile: str
    """Digest of the de-identification profile that was applied."""
    methods: tuple[str, ...]
    """Codes of PS3.16 CID 7050 for what was really done."""
    verifier: str
    """The second scan: `agreed` with every image taken in, `stopped` at least one file, or `no-image`: none was taken in."""
    searched: bool | None
    """Whether pixels were searched for burned-in text; None in a line of an older release, which did not say."""


def promise(site: Site, news: Iterable[Finished]) -> None:
    """Write down, before the index is told, the receipts of the studies these files belong to.

    Raises:
        StorageError: the disk refuses.
    """
    changed = list(news)
    studies: dict[str, list[Finished]] = {}
    for one in changed:
        if study := one.outcome.keys.get("study", ""):
            studies.setdefault(study, []).append(one)
    if not studies:
        return
    note = SEARCHED if site.deid.burned_in_text == "find" else NOT_SEARCHED
    common = {"digest": _profile(site), "note": note}
    lines = [{**_line(study, files), **common} for study, files in sorted(studies.items())]
    proof = {one.key: one.outcome.code for one in changed[:1]}
    with whole_file(_promised(site)) as file:
        file.write(json.dumps({"proof": proof, "lines": lines}).encode("utf-8"))


def deliver(site: Site, index: Index) -> None:
    """Write promised receipts to the audit log; those of a change that never happened are forgotten.

    Raises:
        StorageError: the disk refuses.
    """
    path = _promised(site)
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path.name) from None
    happened = all(_code(index, key) == code for key, code in raw["proof"].items())
    if happened:
        AuditLog(site.audit).append_many([(STUDY, fields) for fields in raw["lines"]])
    path.unlink(missing_ok=True)


def study_receipts(site: Site, study: str = "") -> list[StudyReceipt]:
    """Every study's receipts, oldest first; of one study when the beginning of its keyed UID is given.

    Raises:
        StorageError: `audit-broken`: the log is not whole.
    """
    verify(site.audit)
    lines = (entry for entry in read(site.audit) if entry["event"] == STUDY)
    return [_read(entry) for entry in lines if str(entry["fields"]["study"]).startswith(study)]


def _promised(site: Site) -> Path:
    return site.state / "receipts.json"


def _code(index: Index, key: str) -> str:
    held = index.file_outcome(key)
    return "" if held is None else held.code


def _profile(site: Site) -> str:
    return effective(site.deid, site.tighten).digest


def _line(study: str, files: Iterable[Finished]) -> dict[str, object]:
    outcomes = [one.outcome for one in files]
    accepted = [outcome for outcome in outcomes if outcome.accepted]
    actions: Counter[str] = Counter()
    for outcome in accepted:
        for word, count in outcome.actions.items():
            name = word.replace("-", "_")
            if name != "blanked":  # counted by its places, below
                actions[name if name in ACTIONS else "other"] += count
    methods = sorted({code for outcome in accepted for code in outcome.methods})
    said: dict[str, object] = {
        "study": study,
        "files": len(outcomes),
        "images": len(accepted),
        "count": len(outcomes) - len(accepted),
        "blanked": sum(len(outcome.boxes) for outcome in accepted),
        "status": _verifier(outcomes),
        **{name: count for name, count in actions.items() if count},
    }
    return {**said, "methods": "/".join(methods)} if methods else said


def _verifier(outcomes: Sequence[Outcome]) -> str:
    """What the second scan said; of files that were refused before it, or after it, it is not claimed to have agreed."""
    if any(outcome.code.startswith(_VERIFY) for outcome in outcomes):
        return STOPPED
    return AGREED if any(outcome.accepted for outcome in outcomes) else NO_IMAGE


def _read(entry: Mapping[str, Any]) -> StudyReceipt:
    fields = entry["fields"]
    return StudyReceipt(
        time=entry["time"],
        study=fields["study"],
        files=fields["files"],
        images=fields["images"],
        refused=fields["count"],
        actions={name: fields[name] for name in ACTIONS if name in fields},
        blanked=fields["blanked"],
        profile=fields["digest"],
        methods=tuple(filter(None, str(fields.get("methods", "")).split("/"))),
        verifier=fields["status"],
        searched={SEARCHED: True, NOT_SEARCHED: False}.get(fields.get("note", "")),
    )
