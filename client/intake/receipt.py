"""The receipt of an ingestion in the hospital's audit log: how many files, what became of them, by which rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from client.deid.deidentify import METHODS
from client.deid.profile import built_in
from client.intake.report import IngestReport
from client.site import Site
from common.audit import AuditLog, read

_REFUSED: Final = "ingest.refused"
_DONE: Final = "ingest.done"


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
    log.append(
        _DONE,
        files=report.received,
        images=report.accepted,
        count=sum(report.refused.values()),
        patients=report.patients,
        digest=built_in().digest,
        version="/".join(code for code, _ in METHODS),
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
