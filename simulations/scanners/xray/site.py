"""A site: one machine and the habits of the room it stands in; `draw` draws one exposure from them and records it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from common.errors import DataError
from simulations.phantoms import Projection
from simulations.scanners.spread import Normal, Spread, near, scaled
from simulations.scanners.xray.exposure import Exposure, Marker
from simulations.scanners.xray.machine import Machine

DISTANCE_MM: Final = {"PA": 1800.0, "AP": 1050.0}
"""180 cm standing, 100 to 110 cm at the bed: European Guidelines on Quality Criteria, EUR 16260, chest."""
CENTRE_MM: Final = {"PA": 140.0, "AP": 160.0}
"""Middle of an adult chest to panel, cover and air gap included; 160 at the bed."""


@dataclass(frozen=True)
class Habits:
    """How a site takes chests, as distributions from which every exposure is drawn."""

    kvp: Spread
    kerma_ugy: Spread
    """At the panel without patient: 2 to 5 behind a lung are 15 to 35 in the open beam."""
    scatter_to_primary: Spread
    """Before the grid: chest 1 to 3 (Niklason et al., Med Phys 8, 1981), about half behind an air gap."""
    scatter_mm: Spread
    motion_mm: Spread
    """At the panel: 0.05 of a short exposure to 0.6 at the bed."""
    step: Spread
    margin_mm: Spread
    """Of the collimated field from each border."""
    letter: Literal["L", "R"]
    letter_mm: float
    across_mm: Spread
    down_mm: Spread
    stamped: bool
    window_weights: tuple[float, ...]
    """How often each of the machine's window presets was left on."""
    sampling: Literal["element", "area"] = "element"
    """What a written pixel stands for: see `simulations.scanners.xray.exposure`."""


@dataclass(frozen=True)
class Site:
    """One room: everything from which its exposures are drawn. Plain data; `record` writes and reads it."""

    name: str
    machine: Machine
    habits: Habits

    def __post_init__(self) -> None:
        if len(self.habits.window_weights) != len(self.machine.display.windows):
            raise DataError(
                f"site {self.name}", "needs one weight for each window preset", "Give as many as there are"
            )


def draw(
    rng: np.random.Generator,
    site: Site,
    projection: Projection,
    pitch_mm: float,
    month: float = 0.0,
) -> Exposure:
    """Draw one exposure of this site.

    Args:
        rng: chance; the exposure records what came of it.
        site: machine and habits as they are in that month (`simulations.scanners.history.site_at`).
        projection: decides the distances.
        pitch_mm: side of the subject's pixels at the panel.
        month: written into the record.
    """
    habits, display = site.habits, site.machine.display
    weights = np.array(habits.window_weights) / sum(habits.window_weights)
    left, right, top, bottom = (max(0.0, habits.margin_mm.draw(rng)) for _ in range(4))
    step = habits.step.draw(rng)
    whole = pitch_mm * step / site.machine.panel.element_mm
    return Exposure(
        machine=site.machine,
        site=site.name,
        month=month,
        kvp=habits.kvp.draw(rng),
        kerma_ugy=habits.kerma_ugy.draw(rng),
        distance_mm=DISTANCE_MM[projection],
        object_mm=CENTRE_MM[projection],
        scatter_to_primary=habits.scatter_to_primary.draw(rng),
        scatter_mm=habits.scatter_mm.draw(rng),
        motion_mm=abs(habits.motion_mm.draw(rng)),
        step=step,
        binning=1.0 if habits.sampling == "element" else max(1.0, whole),
        field_mm=(left, right, top, bottom),
        marker=Marker(
            habits.letter,
            habits.letter_mm,
            habits.across_mm.draw(rng),
            habits.down_mm.draw(rng),
            habits.stamped,
        ),
        window=display.windows[int(rng.choice(len(display.windows), p=weights))],
        strength=float(rng.choice(display.strength)) if display.strength else 0.0,
        seed=int(rng.integers(2**63)),
    )


def another_site(name: str, model: Site, seed: int) -> Site:
    """A further room with a machine of the same kind: no two of one catalogue number are alike.

    Dose, electronic noise, focal spot, grid and processing are drawn around the model's; the fixed pattern is the
    machine's own. Deviations are our choice: a fifth for dose between rooms, a tenth between copies.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])

    machine, habits = model.machine, model.habits
    panel, display = machine.panel, machine.display
    grid = machine.grid and replace(machine.grid, residue=min(1.0, near(rng, machine.grid.residue, 0.2)))
    return Site(
        name,
        replace(
            machine,
            tube=replace(machine.tube, focal_mm=near(rng, machine.tube.focal_mm, 0.1)),
            grid=grid,
            panel=replace(
                panel,
                electronic=near(rng, panel.electronic, 0.1),
                gain_spread=near(rng, panel.gain_spread, 0.2),
                dead_ppm=near(rng, panel.dead_ppm, 0.4),
            ),
            display=replace(
                display,
                edge_gain=near(rng, display.edge_gain, 0.1) if display.edge_gain else 0.0,
                gamma=near(rng, display.gamma, 0.04),
                anchor=Normal(display.anchor, 0.01).draw(rng),
            ),
            pattern=int(rng.integers(2**62)),
        ),
        replace(habits, kerma_ugy=scaled(habits.kerma_ugy, near(rng, 1.0, 0.2))),
    )
