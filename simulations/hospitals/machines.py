"""The machines of virtual hospitals, of both chains of radiographs, as one thing: a machine in a room, that takes pictures.

The demo's four (`simulations.scanners`) are the same wherever they stand. Those of `simulations.scanners.xray` are rooms of their own: no two
hospitals have the same one (`another_site`). Either may drift and be serviced (`simulations.scanners.history`); months count
from the first day of all archives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from simulations import scanners
from simulations.hospitals.people import FIRST_DAY
from simulations.phantoms import Anatomy
from simulations.scanners import SCANNERS, Scanner, xray
from simulations.scanners.history import History, site_at

Room = Scanner | xray.Site
Mask = npt.NDArray[np.bool_]

MODELS: Final[dict[str, Room]] = {**SCANNERS, **xray.SITES}
"""Every machine that a hospital may have, by name."""
MONTH_DAYS: Final = 30.4375
"""A twelfth of 365.25."""
_SELENIUM_BLUR_MM: Final = 0.05
"""Below it a panel has no light that spreads: it turns quanta into charge at once."""
_MAS_PER_UGY: Final = 1 / 3.0
"""At 180 cm; see `Settings.exposure_mas`."""


@dataclass(frozen=True)
class Shot:
    """How one image was taken, as its header tells it."""

    machine: str
    manufacturer: str
    model: str
    sop: Literal["DX", "CR"]
    bits: int
    pitch_mm: float
    """Between written pixels, at the panel."""
    direct: bool
    """Whether the panel turns quanta into charge without light."""
    kvp: float
    mas: float
    lossy: str = ""
    """DICOM's word for the compression that was applied; empty without."""
    ratio: float = 1.0
    """Of that compression, where it has one."""


@dataclass(frozen=True, eq=False)
class Taken:
    """One image, and where on it the anatomy lies."""

    shot: Shot
    pixels: npt.NDArray[np.uint16] = field(repr=False)
    on_image: Callable[[Mask], Mask] = field(repr=False)
    """A mask of the anatomy in the pixels of this image."""


def month_of(day: date) -> float:
    """Months since the first day of all archives."""
    return (day - FIRST_DAY).days / MONTH_DAYS


def maker(name: str) -> str:
    """Who makes a machine; invented."""
    room = MODELS[name]
    return room.manufacturer if isinstance(room, Scanner) else room.machine.manufacturer


def makers() -> dict[str, tuple[str, ...]]:
    """Every maker with the models that virtual hospitals may have of it."""
    heads = [room if isinstance(room, Scanner) else room.machine for room in MODELS.values()]
    return {
        one.manufacturer: tuple(dict.fromkeys(h.model for h in heads if h.manufacturer == one.manufacturer))
        for one in heads
    }


def alike(name: str) -> tuple[str, ...]:
    """All machines of the same chain."""
    return tuple(SCANNERS) if name in SCANNERS else tuple(xray.SITES)


def room_of(name: str, hospital: str, seed: int) -> Room:
    """The machine of this kind that stands at a hospital; the same for the same arguments."""
    model = MODELS[name]
    return model if isinstance(model, Scanner) else xray.another_site(f"{hospital} {name}", model, seed)


def aged(room: Room, history: History | None, day: date) -> Room:
    """The machine as it is on a day.

    Raises:
        DataError: a path of the history names nothing, or not a number.
    """
    return room if history is None else site_at(room, history, month_of(day))


def take(rng: np.random.Generator, name: str, room: Room, anatomy: Anatomy, month: float = 0.0) -> Taken:
    """One exposure.

    Args:
        rng: chance; the same number of draws for the same machine.
        name: of the machine in `MODELS`.
        room: as `room_of` or `aged` give it.
        anatomy: who stands there.
        month: written into the record of the exposure.
    """
    if isinstance(room, Scanner):
        settings = scanners.draw(rng, room)
        shot = Shot(
            machine=name,
            manufacturer=room.manufacturer,
            model=room.model,
            sop=room.sop,
            bits=room.bits,
            pitch_mm=room.pitch_mm,
            direct=room.detector.blur_elements < 0.4,
            kvp=settings.kvp,
            mas=settings.exposure_mas,
        )
        pixels = scanners.apply(anatomy, settings)
        return Taken(shot, pixels, lambda mask: scanners.on_detector(mask, anatomy, settings))
    exposure = xray.draw(rng, room, anatomy.projection, anatomy.pitch_mm, month)
    pixels = xray.expose(xray.subject_of(anatomy), exposure)
    return Taken(_told(name, exposure, anatomy.pitch_mm), pixels, lambda mask: xray.on_panel(mask, exposure))


def _told(name: str, exposure: xray.Exposure, pitch_mm: float) -> Shot:
    machine = exposure.machine
    lossy = {"none": "", "jpeg": "ISO_10918_1", "jpeg2000": "ISO_15444_1"}[machine.display.compression]
    return Shot(
        machine=name,
        manufacturer=machine.manufacturer,
        model=machine.model,
        sop=machine.sop,
        bits=machine.display.bits,
        pitch_mm=pitch_mm * exposure.step,
        direct=machine.panel.blur_mm < _SELENIUM_BLUR_MM,
        kvp=exposure.kvp,
        mas=exposure.kerma_ugy * _MAS_PER_UGY * (exposure.distance_mm / xray.DISTANCE_MM["PA"]) ** 2,
        lossy=lossy,
        ratio=exposure.strength if lossy == "ISO_15444_1" else 1.0,
    )
