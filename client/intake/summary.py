"""What was received, refused and why, over all ingestions of a site."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from client.index import Index
from client.intake.outcome import ACCEPTED
from client.intake.quarantine import Quarantine, Refusal
from client.intake.report import IngestReport
from client.site import Site


@dataclass(frozen=True)
class IntakeCounts:
    """Files by fate, each distinct file once, however often it was sent."""

    received: int
    accepted: int
    refused: dict[str, int]
    patients: int


@dataclass(frozen=True)
class RefusedRow:
    """One reason of refusal, as hospital IT reads it."""

    code: str
    count: int
    rule: str
    remedy: str
    ids: tuple[str, ...]
    """Quarantine identifiers."""
    state: str
    """`waiting` for a person, or `refused`."""
    oldest_days: int
    """Whole days since the first of them was refused."""
    days_left: int
    """Whole days until the first of them is removed."""


def intake_summary(site: Site) -> IntakeCounts:
    """Counts over all ingestions.

    Raises:
        StorageError: the index cannot be read.
    """
    with Index(site.index) as index:
        outcomes = index.outcomes()
        patients = index.n_patients()
    refused = {code: n for code, n in outcomes.items() if code not in (ACCEPTED, "withdrawn")}
    return IntakeCounts(sum(outcomes.values()), outcomes.get(ACCEPTED, 0), refused, patients)


def cli_rows(site: Site) -> list[RefusedRow]:
    """Every reason for which files lie in quarantine, with its rule, remedy and identifiers."""
    rows: dict[str, list[Refusal]] = {}
    for refusal in Quarantine.of(site).refusals():
        rows.setdefault(refusal.code, []).append(refusal)
    return [_row(code, found, site.policy.quarantine_days) for code, found in rows.items()]


def _row(code: str, found: list[Refusal], kept_days: int) -> RefusedRow:
    first, ids = found[0], tuple(one.id for one in found)
    oldest = max(age_days(one) for one in found)
    left = max(0, kept_days - oldest)
    return RefusedRow(code, len(found), first.rule, first.remedy, ids, first.state, oldest, left)


def age_days(refusal: Refusal) -> int:
    """Whole days since a file was first refused; 0 for one of an older release that was not dated yet."""
    if not refusal.since:
        return 0
    return max(0, (datetime.now(UTC) - datetime.fromisoformat(refusal.since)).days)


def table(report: IngestReport) -> list[list[str]]:
    """Reason by modality, with a head line and sums: the account of every file of one ingestion."""
    modalities = sorted({m for counts in report.by_modality.values() for m in counts})
    lines = [["outcome", *modalities, "all"]]
    codes = sorted(report.by_modality, key=lambda code: (code != ACCEPTED, code))
    for code in codes:
        counts = [report.by_modality[code].get(m, 0) for m in modalities]
        lines.append([code, *map(str, counts), str(sum(counts))])
    sums = [sum(c.get(m, 0) for c in report.by_modality.values()) for m in modalities]
    lines.append(["received", *map(str, sums), str(sum(sums))])
    return lines


def as_markdown(lines: list[list[str]]) -> str:
    """The same table for a document."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]) + "\n"
