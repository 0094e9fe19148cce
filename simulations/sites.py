"""`[[site]]` of a scenario: a virtual hospital, or many that are alike, each drawn from the same description.

    [[site]]
    name = "village"                       # village-001, village-002, ... where there are copies
    copies = 100
    patients = [20, 60]                    # one number, or a range from which every copy draws
    prevalence = [0.1, 0.4]
    scanners = { aster-dr = 0.7, dorado-mobile = 0.3 }
    one_scanner = true                     # every copy has one machine, drawn with these weights
    [site.prevalence_by.projection]
    AP = 0.6
    [site.labels]
    missing = 0.1
    [[site.labels.reader]]                 # see Labelling and Reader
    [[site.change]]                        # from a day on, other machines
    [[site.drift]]                         # see SiteDrift and SiteService
    [[site.service]]

What is drawn for a copy depends on the scenario's seed and the copy's name alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import field
from datetime import date
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from common.errors import DataError
from simulations.hospitals.machines import month_of
from simulations.hospitals.population import Ages, Attribute, Change, Labelling, Mix, Population
from simulations.hospitals.spec import AP_SHARE, LEAST_PATIENTS, HospitalSpec, Syntax
from simulations.scanners.history import Drift, History, Service

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=LEAST_PATIENTS)]
_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _Drawn:
    """What differs between copies."""

    patients: int
    prevalence: float
    scanners: Mix


@dataclass(frozen=True, config=_STRICT)
class SiteDrift:
    """One number of one of the hospital's machines that moves with the months since January 2021, or since it was renewed."""

    scanner: str
    path: str
    """Within the machine, such as `open_kerma_ugy` (the demo's machines) or `habits.kerma_ugy.median`."""
    per_month: float
    kind: Literal["relative", "additive"] = "relative"


@dataclass(frozen=True, config=_STRICT)
class SiteService:
    """What was done to a machine on one day: which drifts begin anew, and what is different from then on."""

    scanner: str
    day: date
    renews: tuple[str, ...] = ()
    sets: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class VirtualSite:
    """One `[[site]]`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,50}$")]
    patients: Count | tuple[Count, Count]
    prevalence: Share | tuple[Share, Share]
    scanners: dict[str, Annotated[float, Field(ge=0)]]
    copies: Annotated[int, Field(ge=1, le=10_000)] = 1
    one_scanner: bool = False
    female: Share = 0.48
    ages: Ages = field(default_factory=Ages)
    ap: dict[str, Share] = field(default_factory=lambda: dict(AP_SHARE))
    """By scanner, the share of patients imaged AP."""
    prevalence_by: dict[Attribute, dict[str, Share]] = field(default_factory=dict)
    labels: Labelling = field(default_factory=Labelling)
    change: tuple[Change, ...] = ()
    drift: tuple[SiteDrift, ...] = ()
    service: tuple[SiteService, ...] = ()
    tested_after: date | None = None
    validation: Share = 0.2
    away: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Rounds in which it does not answer."""
    monochrome1: bool = False
    syntax: Syntax = "explicit"
    burned_in: Annotated[int, Field(ge=0)] = 0
    broken: Annotated[int, Field(ge=0)] = 0
    duplicated: Annotated[int, Field(ge=0)] = 0

    def hospitals(self, seed: int) -> list[HospitalSpec]:
        """The hospitals of this description.

        Args:
            seed: of the scenario.

        Raises:
            DataError: a share or a scanner's name is wrong.
        """
        digits = max(3, len(str(self.copies)))
        names = (
            [self.name]
            if self.copies == 1
            else [f"{self.name}-{n + 1:0{digits}d}" for n in range(self.copies)]
        )
        return [self._hospital(name, seed) for name in names]

    def _hospital(self, name: str, seed: int) -> HospitalSpec:
        drawn = self._drawn(name, seed)
        population = Population(
            drawn.prevalence,
            drawn.scanners,
            self.ap,
            self.female,
            self.ages,
            self.prevalence_by,
            self.labels,
            self.change,
            self.tested_after,
            self.validation,
            self._histories(drawn.scanners),
        )
        used = dict.fromkeys(sorted(population.machines()), 1.0)
        return HospitalSpec(
            name=name,
            institution=f"{name.replace('-', ' ').title()} Hospital",
            patients=drawn.patients,
            prevalence=drawn.prevalence,
            scanners={0: used, 1: used},
            ap=self.ap,
            monochrome1=self.monochrome1,
            syntax=self.syntax,
            burned_in=self.burned_in,
            broken=self.broken,
            duplicated=self.duplicated,
            population=population,
            away=self.away,
        )

    def _histories(self, drawn: Mix) -> dict[str, History]:
        """By machine; of copies with one machine each, that machine's alone."""
        named = dict.fromkeys([*(d.scanner for d in self.drift), *(s.scanner for s in self.service)])
        changed = {name for change in self.change for name in change.scanners}
        return {
            name: History(
                tuple(Drift(d.path, d.per_month, d.kind) for d in self.drift if d.scanner == name),
                tuple(Service(month_of(s.day), s.renews, s.sets) for s in self.service if s.scanner == name),
            )
            for name in named
            if not self.one_scanner or name not in self.scanners or name in {*drawn, *changed}
        }

    def _drawn(self, name: str, seed: int) -> _Drawn:
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
        few, many = self.patients if isinstance(self.patients, tuple) else (self.patients, self.patients)
        low, high = (
            self.prevalence if isinstance(self.prevalence, tuple) else (self.prevalence, self.prevalence)
        )
        if few > many or low > high:
            raise DataError(self.name, "a range ends before it begins", "Write the smaller number first")
        patients, prevalence = int(rng.integers(few, many + 1)), float(rng.uniform(low, high))
        return _Drawn(patients, prevalence, self._machines(rng))

    def _machines(self, rng: np.random.Generator) -> Mix:
        total = sum(self.scanners.values())
        if not self.one_scanner or total <= 0:
            return self.scanners
        shares = np.array(list(self.scanners.values())) / total
        return {str(rng.choice(list(self.scanners), p=shares)): 1.0}


def virtual_sites(sites: Sequence[VirtualSite], seed: int) -> list[HospitalSpec]:
    """All hospitals of a scenario.

    Raises:
        DataError: two of one name, fewer than two, or what a description says wrong.
    """
    made = [spec for site in sites for spec in site.hospitals(seed)]
    names = [spec.name for spec in made]
    if len(set(names)) < len(names):
        raise DataError("site", "two sites have one name", "Give each its own")
    if len(made) < 2:
        raise DataError("site", "a federation needs two sites", "Name another")
    return made
