"""What was received, refused and why, over all ingestions of a site."""

from __future__ import annotations

from dataclasses import dataclass

from client.index import Index
from client.intake.outcome import ACCEPTED
from client.intake.quarantine import Quarantine
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


def intake_summary(site: Site) -> IntakeCounts:
    """Counts over all ingestions.

    Raises:
        StorageError: the index cannot be read.
    """
    with Index(site.index) as index:
        outcomes = index.outcomes()
        patients = len(index.patients())
    refused = {code: n for code, n in outcomes.items() if code not in (ACCEPTED, "withdrawn")}
    return IntakeCounts(sum(outcomes.values()), outcomes.get(ACCEPTED, 0), refused, patients)


def cli_rows(site: Site) -> list[RefusedRow]:
    """Every reason for which files lie in quarantine, with its rule, remedy and identifiers."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for refusal in Quarantine.of(site).refusals():
        rows.setdefault(refusal.code, []).append((refusal.id, refusal.rule, refusal.remedy))
    return [
        RefusedRow(code, len(found), found[0][1], found[0][2], tuple(one[0] for one in found))
        for code, found in rows.items()
    ]


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
