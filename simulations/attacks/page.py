"""The audit for people: verdict, pictures beside their originals, figures, and what all of it does not prove."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from client.files import storage_error
from common.pages.page import Cell, Table, csv_uri, estimate, moment, render, write_whole
from server.records import AuditPicture
from simulations.attacks.images import Pictures
from simulations.attacks.records import AuditRecord, Check, Membership, Reconstructions

_SHOWN: Final = 8
"""Patients whose pictures are on the page; all are in the folder."""
_SCALE: Final = 2
"""Pixels are drawn so many times as wide: a browser would blur 64 of them."""


@dataclass(frozen=True)
class Shown:
    """Pictures of one arm of one attack, patient by patient."""

    attack: str
    arm: str
    pictures: Pictures


@dataclass(frozen=True)
class _Strip:
    """One row of pictures with what is said of it."""

    title: str
    said: str
    images: tuple[str, ...]
    short: str


def write_page(record: AuditRecord, shown: tuple[Shown, ...], out: Path) -> None:
    """Write `audit.html`, and every picture as PNG in `pictures/`.

    Raises:
        StorageError: when the folder cannot be written to.
    """
    try:
        (out / "pictures").mkdir(parents=True, exist_ok=True)
        for number, strip in enumerate(shown):
            for patient, picture in enumerate(strip.pictures):
                name = f"{strip.attack}-{number:02d}-patient-{patient:02d}.png"
                (out / "pictures" / name).write_bytes(_png(picture))
    except OSError as error:
        raise storage_error(error, "the folder of the audit") from None
    write_whole(page_html(record, shown), out / "audit.html")


def page_html(record: AuditRecord, shown: tuple[Shown, ...]) -> str:
    """The page as text; every number in it comes from `record`."""
    failed = [check for check in record.checks if not check.passed]
    return render(
        "audit.html",
        Path(__file__).parent,
        {
            "record": record,
            "moment": moment(record.created),
            "minutes": f"{record.seconds / 60:.1f}",
            "failed": failed,
            "checks": _checks(record.checks),
            "imprint_strips": _strips(shown, "imprint", record.imprint),
            "imprint": _pictures_table("Imprint: images that came back", record.imprint),
            "guess": "" if record.guess_db is None else f"{record.guess_db:.1f}",
            "sums": _sums(record),
            "inversion_strips": _strips(shown, "inversion", record.inversion),
            "inversion": _pictures_table("Inversion of one patient's update", record.inversion),
            "membership": _membership(record),
            "canaries": _canaries(record),
        },
    )


def figure(value: float | None) -> str:
    """A figure to at most four digits, a dash where there is none, or the sign of infinity."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.4g}".replace("-", "−")


def rows_of_pictures(shown: tuple[Shown, ...]) -> tuple[AuditPicture, ...]:
    """What imprint gave back, one picture a row: the originals, then each arm; for the report of a simulated run."""
    return tuple(
        AuditPicture(
            "Originals, which stay in the hospital" if one.arm == "original" else f"Imprint, {one.arm}",
            base64.b64encode(_png(np.concatenate(one.pictures[:_SHOWN], axis=1))).decode("ascii"),
        )
        for one in shown
        if one.attack == "imprint"
    )


def _checks(checks: tuple[Check, ...]) -> Table:
    rows = tuple(
        (
            Cell(check.name),
            Cell("holds" if check.passed else "FAILS", "good" if check.passed else "weak"),
            Cell(figure(check.measured)),
            Cell(f"{figure(check.low)} to {figure(check.high)}", "muted"),
            Cell(check.claim, "text", check.note),
        )
        for check in checks
    )
    header = ("check", "verdict", "measured", "allowed", "claim")
    return Table("What was claimed, and what was measured", header, rows, _csv(header, rows))


def _pictures_table(caption: str, arms: tuple[Reconstructions, ...]) -> Table:
    header = ("protection", "ε claimed", "recovered", "PSNR, dB", "best PSNR, dB", "SSIM")
    rows = tuple(
        (
            Cell(arm.arm),
            Cell("–" if arm.epsilon is None else figure(arm.epsilon)),
            Cell(f"{arm.recovered} of {arm.images}", "weak" if arm.recovered else "good"),
            Cell(f"{np.mean(arm.psnr):.1f}"),
            Cell(f"{max(arm.psnr):.1f}"),
            Cell(f"{np.mean(arm.ssim):.2f}"),
        )
        for arm in arms
    )
    return Table(caption, header, rows, _csv(header, rows), "PSNR and SSIM: means over patients.")


def _sums(record: AuditRecord) -> Table:
    header = ("attack", "hospitals in the sum", "secure aggregation alone", "PSNR, dB", "with DP", "PSNR, dB")
    rows = tuple(
        (
            Cell(row.attack),
            Cell(str(row.sites)),
            Cell(f"{row.alone} of {row.images}", "weak" if row.alone else "good"),
            Cell(f"{row.alone_db:.1f}"),
            Cell(f"{row.with_dp} of {row.images}", "weak" if row.with_dp else "good", f"σ = {row.sigma:g}"),
            Cell(f"{row.with_dp_db:.1f}"),
        )
        for row in record.sums
    )
    note = "Of one hospital's images, from the opened sum, which is all the server sees. PSNR: means over images."
    return Table("What comes back from sums", header, rows, _csv(header, rows), note)


def _membership(record: AuditRecord) -> Table:
    header = (
        "protection",
        "attack",
        "verdict",
        "advantage (95%)",
        "ε allows at most",
        "AUC (95%)",
        "TPR at 1% FPR (95%)",
        "ε allows at most",
        "models",
    )
    rows = tuple(
        (
            Cell(row.arm),
            Cell(row.attack.replace("-", " ")),
            _within(row),
            Cell(estimate(row.advantage)),
            Cell("–" if row.allowed is None else f"{row.allowed:.2f}", "muted"),
            Cell(estimate(row.auc)),
            Cell(estimate(row.tpr_at_1_fpr)),
            Cell("–" if row.ceiling is None else f"{row.ceiling:.2f}", "muted"),
            Cell(f"{row.models} of {row.patients} patients"),
        )
        for row in record.membership
    )
    note = (
        "Advantage: true less false positive rate; 0, AUC 0.5 and TPR 0.01 are chance. "
        "Intervals by resampling models."
    )
    return Table("Membership inference", header, rows, _csv(header, rows), note)


def _within(row: Membership) -> Cell:
    """Whether what the attack found contradicts what is claimed; nothing is claimed without protection."""
    if row.allowed is None:
        return Cell("nothing claimed", "muted")
    kept = row.advantage.low <= row.allowed
    return Cell("within ε", "good") if kept else Cell("CONTRADICTS ε", "weak")


def _canaries(record: AuditRecord) -> Table:
    header = ("claim", "ε is at least (95%)", "right guesses", "canaries")
    rows = tuple(
        (
            Cell(row.arm),
            Cell(f"{row.lower_bound:.2f}", "" if _keeps(row.claimed, row.lower_bound) else "weak"),
            Cell(f"{row.correct} of {row.guesses}"),
            Cell(str(row.canaries)),
        )
        for row in record.canaries
    )
    return Table("Canaries: a lower bound on ε from one run", header, rows, _csv(header, rows))


def _keeps(claimed: float | None, bound: float) -> bool:
    return claimed is not None and bound <= claimed


def _strips(shown: tuple[Shown, ...], attack: str, arms: tuple[Reconstructions, ...]) -> list[_Strip]:
    said = {arm.arm: f"{arm.recovered} of {arm.images} recovered" for arm in arms}
    return [
        _Strip(
            "Originals, which stay in the hospital" if strip.arm == "original" else strip.arm,
            said.get(strip.arm, ""),
            tuple(_uri(picture) for picture in strip.pictures[:_SHOWN]),
            strip.arm.removeprefix("one step, "),
        )
        for strip in shown
        if strip.attack == attack
    ]


def _csv(header: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]) -> str:
    return csv_uri(header, [[cell.text for cell in row] for row in rows])


def _uri(picture: Pictures) -> str:
    return "data:image/png;base64," + base64.b64encode(_png(picture)).decode("ascii")


def _png(picture: Pictures) -> bytes:
    grey = np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8).repeat(_SCALE, 0).repeat(_SCALE, 1)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
