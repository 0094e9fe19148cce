"""Hospitals with prepared stores, laid down directly: what a benchmark of rounds begins with.

Every image is noise, with a bright patch where its label is 1. Rows go through the index's own door and arrays into
the store's own form, so that the client's code finds what intake would have left; no DICOM is written, because nothing
in a round reads one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tomli_w

from client.index import ImageRow, Index
from client.policy import Policy
from client.privacy.ledger import Ledger
from client.site import Site, init_site, load_site
from common.checkpoints import write_whole
from common.plan import Input, Plan, plan_from_dict

SIDE: Final = 32
"""Rows and columns of an image."""
IMAGES: Final = 64
"""Of one hospital, each of a patient of its own."""
_PATCH: Final = 0.5
_MARK: Final = "planted.json"


def planted_plan(rounds: int, chosen: int, sites: int) -> Plan:
    """The task of the benchmark: a small network, one epoch a round in batches of 16, no privacy.

    Args:
        rounds: of training.
        chosen: hospitals that train in a round; all where that is as many as there are.
        sites: hospitals there are.
    """
    return plan_from_dict(
        {
            "study": {"name": "speed", "question": "What does a round cost beside computing?"},
            "task": {"kind": "binary", "classes": ["patch"]},
            "input": {"modalities": ["DX"], "shape": [SIDE, SIDE]},
            "labels": {"source": "synthetic", "provenance": "noise with a patch"},
            "model": {"name": "small-cnn"},
            "training": {"batch_patients": 16, "learning_rate": 0.05, "momentum": 0.0},
            "federation": {
                "rounds": rounds,
                "least_sites": 2,
                "robust": "none",
                "sites_per_round": chosen if chosen < sites else 0,
            },
        }
    )


def plant(folder: Path, sites: int, seed: int = 1) -> list[Site]:
    """Hospitals in `folder`, the first `sites` of as many as were ever asked for; those that are there are kept.

    Args:
        folder: of all of them; made where it is not.
        sites: how many.
        seed: of the images.
    """
    return [_planted(folder / f"site-{number:04}", number, seed) for number in range(1, sites + 1)]


def images_of(number: int, seed: int = 1) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    """Images [64, rows, columns] and labels [64] of one hospital; the same numbers give the same ones."""
    rng = np.random.default_rng([seed, number])
    labels = rng.integers(0, 2, IMAGES).astype(np.float32)
    images = rng.standard_normal((IMAGES, SIDE, SIDE), np.float32)
    quarter = SIDE // 4
    images[:, quarter : 2 * quarter, quarter : 2 * quarter] += _PATCH * labels[:, None, None]
    return images.astype(np.float16), labels


def _planted(folder: Path, number: int, seed: int) -> Site:
    mark = folder / _MARK
    if mark.is_file() and json.loads(mark.read_text()) == {"seed": seed}:
        return load_site(folder)
    policy = Policy(allow_non_private=True, private_progress=True, max_surveys_per_run=1000)
    site = init_site(folder, folder.name, simulation_seed=seed, policy=policy)
    from client.store import lay_down  # noqa: PLC0415 - its readers of files; a run over what is planted has none

    images, labels = images_of(number, seed)
    rows = [_row(number, place, int(label)) for place, label in enumerate(labels)]
    with Index(site.index) as index, index.transaction():
        for row in rows:
            index.add_image(row)
    spec = Input(modalities=("DX",), shape=(SIDE, SIDE))
    lay_down(site, spec, rows, _each(images))
    site.state.mkdir(exist_ok=True)
    Ledger.create(site.ledger, simulated=True).close()
    write_whole(mark, json.dumps({"seed": seed}).encode())
    return site


def _each(images: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    yield from images


def _row(number: int, place: int, label: int) -> ImageRow:
    uid = f"2.25.{number}{place:03}"
    return ImageRow(
        sop_uid=uid,
        patient=f"P{place:03}",
        spend_key=f"spend-{number}-{place}",
        study_uid=f"{uid}.1",
        series_uid=f"{uid}.2",
        file=f"{uid}.dcm",
        modality="DX",
        rows=SIDE,
        cols=SIDE,
        label=label,
        split="train",
        pixel_digest=f"{number:08x}{place:08x}",
    )


def fresh(prepared: Path, folder: Path) -> None:
    """The hospital `folder` is named after, for one run: the data that is prepared, a state of its own.

    Args:
        prepared: folder of the planted hospitals.
        folder: of this one in this run; left as it is where it holds a site.
    """
    if (folder / "site.toml").exists():
        return
    base = prepared / folder.name
    folder.mkdir(parents=True)
    values = {
        "name": folder.name,
        "simulated": True,
        "data": str((base / "data").resolve()),
        "secrets": str((base / "secrets").resolve()),
    }
    policy = {"allow_non_private": True, "private_progress": True, "max_surveys_per_run": 1000}
    (folder / "site.toml").write_text(tomli_w.dumps({"site": values, "policy": policy}), encoding="utf-8")
    (folder / "state").mkdir(mode=0o700)
