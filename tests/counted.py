"""Hospitals that are rows of an index and nothing else: what an analysis counts, made by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from client.index import ImageRow, Index
from client.policy import Policy
from client.service import SiteService
from client.site import Site, init_site
from common.plan import Plan
from simulations.enrolment import enrol
from tests.client.made import made_plan

MAKERS = ("Aster Imaging", "Borealis")
FIGURES = {
    "median": 900.0,
    "spread": 2000.0,
    "exposure": 0.45,
    "contrast": 0.7,
    "noise": 0.004,
    "sharpness": 0.03,
}


def survey_plan(names: Sequence[str] = (), *, own: Iterable[str] = (), **sections) -> Plan:
    """An analysis of radiographs at these hospitals."""
    asked = {"survey": True, "own": list(own), "manufacturers": list(MAKERS), **sections.pop("analytics", {})}
    named = {"sites": list(names), "least_sites": min(2, len(names) or 2), "deadline_s": 60.0}
    federation = {**named, **sections.pop("federation", {})}
    return made_plan(analytics=asked, federation=federation, **sections)


def patient(number: int, image: int = 0, **row) -> ImageRow:
    """One image of one patient."""
    values = {"age": 55, "sex": "F", "projection": "PA", "manufacturer": MAKERS[0], "label": 0, **row}
    quality = {**FIGURES, **values.pop("quality", {})}
    uid = f"2.25.{number + 1}{image:03d}"
    name = values.pop("patient", f"P{number:04d}")
    return ImageRow(
        sop_uid=uid,
        patient=name,
        spend_key=f"spend-{name}",
        study_uid=f"{name}.{image}.study",
        series_uid=f"{uid}.series",
        file=f"{uid}.dcm",
        modality=values.pop("modality", "DX"),
        quality=quality,
        pixel_digest=uid,
        **values,
    )


def add(site: Site, rows: Iterable[ImageRow]) -> None:
    """Put images into a site's index."""
    with Index(site.index) as index, index.transaction():
        for row in rows:
            index.add_image(row)


def counted_site(folder: Path, name: str, rows: Iterable[ImageRow], **policy) -> Site:
    """A virtual hospital with these images; its policy shows cells unless said otherwise."""
    site = init_site(
        folder / name, name, simulation_seed=1, policy=Policy(**{"analytics": "cells", **policy})
    )
    add(site, rows)
    return site


def population(seed: int, count: int = 240, *, ill: float = 0.4, carried: bool = False, dark: bool = False):
    """Patients drawn from one distribution; `carried`: the ill come from one machine; `dark`: other images."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        label = int(rng.random() < ill)
        maker = int(rng.random() < ((0.9 if label else 0.1) if carried else 0.5))
        yield patient(
            number,
            label=label,
            age=int(rng.integers(30, 80)),
            sex="FM"[int(rng.integers(2))],
            projection=("PA", "AP")[int(rng.integers(2))],
            manufacturer=MAKERS[maker],
            quality={"exposure": float(np.clip(rng.normal(0.2 if dark else 0.5, 0.1), 0, 0.99))},
        )


def federation(folder: Path, hospitals: dict[str, Iterable[ImageRow]], **policy) -> list[SiteService]:
    """Enrolled services of these hospitals; the consortium's folder lies beside them."""
    sites = [counted_site(folder, name, rows, **policy) for name, rows in hospitals.items()]
    enrol(sites, folder / "consortium")
    return [SiteService(site) for site in sites]
