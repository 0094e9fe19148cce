"""Patients like those of every hospital, each imaged on every machine: what only virtual patients can give.

They are drawn from the hospitals' own populations, with machine, posture, sex, age and truth as those come together there, and are nobody's
training patients. Patient i is drawn from (seed, i) and from nothing else, so that the work can be cut anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from client.preprocess import to_tensor
from common.plan import Input
from common.types import FloatArray
from simulations import phantoms
from simulations.hospitals import HospitalSpec, probe_dataset
from simulations.hospitals.machines import MODELS, Taken, alike, maker, take
from simulations.hospitals.population import draw
from simulations.probes.contract import Counterfactual, Images, Model
from simulations.probes.saliency import shares

PATIENTS: Final = 240
"""Of all hospitals together."""
_EACH: Final = 12
"""Least patients of a hospital that takes part; where there are many hospitals, some are drawn."""
_KEY: Final = 0x73776170


@dataclass(frozen=True)
class Guest:
    """Who is drawn: everything but the body."""

    number: int
    site: str
    positive: bool
    projection: phantoms.Projection
    scanner: str
    """The machine on which this patient would really be imaged."""
    sex: Literal["F", "M"] | None = None
    age: int | None = None


@dataclass(frozen=True)
class Exposed:
    """One patient on every machine."""

    images: Images
    """[machines, rows, columns] as the network sees them."""
    lungs: npt.NDArray[np.float32]
    """[rows, columns] on the own machine, 0 to 1."""
    finding: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """What a model says of some of the guests."""

    numbers: tuple[int, ...]
    logits: FloatArray
    """[guests, machines]"""
    lungs: FloatArray | None
    """[guests, 2] share of heat and of area, on the own machine; None where the model has no maps."""
    finding: FloatArray | None
    """[ill guests, 2] the same inside the finding."""
    heat: FloatArray | None
    """[rows, columns] the sum over guests of maps that sum to 1."""
    image: FloatArray
    """[rows, columns] the sum over guests of images on the own machine."""


def guests(specs: Sequence[HospitalSpec], seed: int, patients: int = PATIENTS) -> list[Guest]:
    """Who takes part, hospital by hospital.

    Args:
        specs: the hospitals.
        seed: the same seed draws the same patients.
        patients: of all hospitals together, shared evenly.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_KEY,)))
    most = max(1, patients // _EACH)
    chosen = sorted(rng.permutation(len(specs))[:most].tolist())
    share, rest = divmod(patients, len(chosen))
    found: list[Guest] = []
    for place, index in enumerate(chosen):
        found += _of(specs[index], share + (place < rest), rng, len(found))
    return found


def machines_of(specs: Sequence[HospitalSpec]) -> tuple[str, ...]:
    """Every machine that some hospital uses, or all of its chain where that is only one."""
    used = {name for spec in specs for weights in spec.scanners.values() for name, w in weights.items() if w}
    used |= {name for spec in specs if spec.population for name in spec.population.machines()}
    if len(used) == 1:
        return alike(next(iter(used)))
    return tuple(name for name in MODELS if name in used)


def exposed(guest: Guest, machines: Sequence[str], seed: int, spec: Input) -> Exposed:
    """Expose one guest on every machine.

    Args:
        guest: who.
        machines: by name.
        seed: of the cohort.
        spec: how images are prepared.
    """
    taken, anatomy = _raw(guest, machines, seed)
    images = [to_tensor(probe_dataset(one.pixels, one.shot), spec) for one in taken]
    own = taken[machines.index(guest.scanner)]
    grid = (spec.shape[-2], spec.shape[-1])
    masks = (own.on_image(mask) for mask in (anatomy.lung, anatomy.finding))
    lungs, finding = (_averaged(mask, grid) for mask in masks)
    return Exposed(np.stack(images), lungs, finding)


def pixels_of(guest: Guest, machines: Sequence[str], seed: int) -> list[npt.NDArray[np.uint16]]:
    """The pixels of one guest as the machines write them, [256, 256] each, for a picture."""
    return [one.pixels for one in _raw(guest, machines, seed)[0]]


def told(model: Model, who: Sequence[Guest], machines: Sequence[str], seed: int, spec: Input) -> Part:
    """What a model says of these guests on every machine."""
    own = [machines.index(guest.scanner) for guest in who]
    shown = [exposed(guest, machines, seed, spec) for guest in who]
    images = np.stack([one.images for one in shown])
    flat = images.reshape(-1, *images.shape[2:])
    logits = model.logits(flat).reshape(images.shape[:2])
    factual = images[np.arange(len(who)), own]
    lungs = finding = heat = None
    if model.heat is not None:
        maps = np.asarray(model.heat(factual), dtype=np.float64)
        ill = np.array([guest.positive for guest in who])
        lungs = shares(maps, np.stack([one.lungs for one in shown]))
        finding = shares(maps[ill], np.stack([one.finding for one in shown])[ill])
        total = maps.sum(axis=(1, 2), keepdims=True)
        heat = (maps / np.where(total > 0, total, 1)).sum(axis=0)
    numbers = tuple(guest.number for guest in who)
    return Part(numbers, logits, lungs, finding, heat, factual.sum(axis=0, dtype=np.float64))


def joined(parts: Sequence[Part], who: Sequence[Guest], machines: tuple[str, ...]) -> Counterfactual:
    """The scores of all parts, in the order of the guests."""
    logits = np.empty((len(who), len(machines)))
    for part in parts:
        logits[list(part.numbers)] = part.logits
    return Counterfactual(
        logits,
        tuple(maker(name) for name in machines),
        np.array([guest.positive for guest in who]),
        np.array([guest.site for guest in who]),
        np.array([machines.index(guest.scanner) for guest in who]),
    )


def _of(spec: HospitalSpec, count: int, rng: np.random.Generator, first: int) -> Iterator[Guest]:
    if spec.population is not None:
        for number, one in enumerate(draw(spec.population, count, rng)):
            yield Guest(
                first + number, spec.name, one.positive, one.projection, one.scanner, one.sex, one.age
            )
        return
    for number in range(count):
        positive = number < round(count * spec.prevalence)
        weights = spec.scanners[int(positive)]
        share = np.array(list(weights.values()), dtype=np.float64)
        scanner = str(rng.choice(list(weights), p=share / share.sum()))
        view: phantoms.Projection = "AP" if rng.random() < spec.ap.get(scanner, 0.3) else "PA"
        yield Guest(first + number, spec.name, positive, view, scanner)


def _raw(guest: Guest, machines: Sequence[str], seed: int) -> tuple[list[Taken], phantoms.Anatomy]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_KEY, guest.number)))
    body = phantoms.draw_patient(rng, guest.positive, guest.sex, guest.age)
    anatomy = phantoms.render(body, guest.projection, pose=phantoms.draw_pose(rng, guest.projection))
    return [take(rng, name, MODELS[name], anatomy) for name in machines], anatomy


def _averaged(mask: npt.NDArray[np.bool_], grid: tuple[int, int]) -> npt.NDArray[np.float32]:
    small = torch.nn.functional.adaptive_avg_pool2d(
        torch.from_numpy(mask.astype(np.float32))[None, None], grid
    )
    return np.asarray(small[0, 0].numpy(), dtype=np.float32)
