"""A contact sheet: the same patient through every machine, so that a radiologist can look.

Rows: the chest on each X-ray machine; a part of it at full size, where noise and sharpness show; the head on each
magnet; the trunk on each CT scanner in a lung and in a soft tissue window. Every picture's record stands beside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from simulations.phantoms import draw_patient, draw_pose, render
from simulations.phantoms.head import draw_head, render_head
from simulations.phantoms.trunk import draw_trunk, render_trunk
from simulations.scanners import ct, mr, xray
from simulations.scanners.record import to_record

SIZE: Final = 512
CAPTION: Final = 34
GAP: Final = 6
WINDOWS: Final = (("lung window", -600.0, 1500.0), ("soft tissue window", 40.0, 400.0))
"""Name, centre and width in Hounsfield units, as chest CT is read."""
Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """One cell of the sheet."""

    title: str
    detail: str
    grey: Grey
    """[512, 512]."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """The rows of the sheet, and the record of every exposure on it in order."""

    rows: tuple[tuple[Picture, ...], ...]
    records: tuple[str, ...]

    def image(self) -> Image.Image:
        """The sheet as one picture."""
        wide = max(len(row) for row in self.rows)
        cell = SIZE + GAP
        canvas = Image.new("L", (wide * cell + GAP, len(self.rows) * (cell + CAPTION) + GAP), 24)
        draw = ImageDraw.Draw(canvas)
        for down, row in enumerate(self.rows):
            for across, one in enumerate(row):
                left, top = GAP + across * cell, GAP + down * (cell + CAPTION)
                draw.text((left + 2, top), one.title, fill=255, font=ImageFont.load_default(15))
                draw.text((left + 2, top + 17), one.detail, fill=170, font=ImageFont.load_default(12))
                canvas.paste(Image.fromarray(one.grey), (left, top + CAPTION))
        return canvas


def contact_sheet(
    seed: int, chest: xray.Subject | None = None, month: float = 0.0, history: xray.History | None = None
) -> Sheet:
    """Draw a patient of each kind and take each through every machine.

    Args:
        seed: of patients and exposures.
        chest: the subject for the X-ray rows instead of a phantom, for instance a real image's.
        month: how long every X-ray room has drifted.
        history: by which drifts and services; none when left out.
    """
    rng = np.random.default_rng(seed)
    records: list[str] = []
    phantom = render(draw_patient(rng, positive=True), "PA", SIZE, draw_pose(rng, "PA"))
    subject = chest or xray.subject_of(phantom)
    whole, near = [], []
    for name, site in xray.SITES.items():
        room = site if history is None else xray.site_at(site, history, month)
        exposure = xray.draw(rng, room, subject.projection, subject.pitch_mm, month)
        records.append(to_record(exposure))
        grey = _grey(xray.expose(subject, exposure) / (2**exposure.machine.display.bits - 1))
        detail = f"{exposure.kvp:.0f} kV, {exposure.kerma_ugy:.0f} uGy, {exposure.window.name}"
        whole.append(Picture(name, f"{detail}, {exposure.machine.display.bits} bit", _fitted(grey)))
        near.append(Picture(name, "the part around the right hilum, 3 times", _near(grey)))
    rows = [tuple(whole), tuple(near), _heads(rng, records), *_trunks(rng, records)]
    return Sheet(tuple(rows), tuple(records))


def _heads(rng: np.random.Generator, records: list[str]) -> tuple[Picture, ...]:
    head = render_head(draw_head(rng, positive=True), SIZE)
    row = []
    for name, site in mr.SITES.items():
        made = mr.draw(rng, site)
        records.append(to_record(made))
        detail = f"{made.field_t} T, {made.sequence.name}, {made.matrix[0]} x {made.matrix[1]}, {made.thickness_mm:.0f} mm"
        row.append(Picture(name, detail, _grey(mr.acquire(head, made) / (2**made.bits - 1))))
    drawn = mr.draw(rng, mr.SITES["middle-field"])
    spoilt = replace(drawn, jump_mm=(3.0, 1.0), jump_at=0.6, spikes=((31, 22, 0.05),))
    records.append(to_record(spoilt))
    pixels = mr.acquire(head, spoilt) / (2**spoilt.bits - 1)
    return (*row, Picture("middle-field, spoilt", "jump of 3 mm, one spike in k-space", _grey(pixels)))


def _trunks(rng: np.random.Generator, records: list[str]) -> list[tuple[Picture, ...]]:
    trunk = render_trunk(draw_trunk(rng, positive=True), SIZE)
    rows: list[list[Picture]] = [[] for _ in WINDOWS]
    for name, site in ct.SITES.items():
        made = ct.draw(rng, site)
        records.append(to_record(made))
        hounsfield = ct.scan(trunk, made).astype(np.float32) - made.intercept
        for row, (window, centre, width) in zip(rows, WINDOWS, strict=True):
            detail = (
                f"{made.kvp:.0f} kV, {made.mas:.0f} mAs, {made.thickness_mm} mm, {made.kernel.name}, {window}"
            )
            row.append(Picture(name, detail, _grey((hounsfield - centre) / width + 0.5)))
    return [tuple(row) for row in rows]


def _grey(value: npt.NDArray[np.floating]) -> Grey:
    return np.asarray(np.rint(np.clip(value, 0, 1) * 255), dtype=np.uint8)


def _fitted(grey: Grey) -> Grey:
    """The whole image in a cell, its shape kept."""
    if grey.shape == (SIZE, SIZE):
        return grey
    scale = SIZE / max(grey.shape)
    rows, columns = (max(1, round(n * scale)) for n in grey.shape)
    cell = np.zeros((SIZE, SIZE), np.uint8)
    made = np.asarray(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BICUBIC))
    cell[:rows, :columns] = made
    return cell


def _near(grey: Grey) -> Grey:
    """A third of the image's sides, every pixel a square."""
    rows, columns = grey.shape
    high, wide = rows // 3, columns // 3
    part = grey[rows // 3 : rows // 3 + high, columns // 6 : columns // 6 + wide]
    return np.asarray(Image.fromarray(part).resize((SIZE, SIZE), Image.Resampling.NEAREST))
