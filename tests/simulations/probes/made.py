"""Models and patients that a test makes up: what is true of them is known."""

from __future__ import annotations

import numpy as np

from simulations.probes.contract import Counterfactual, Images, Model, Seen

SIDE = 16
MACHINES = ("Aster", "Dorado")


def reader(place: tuple[slice, slice]) -> Model:
    """A model that reads one place of the image, and the finding in the middle."""
    middle = (slice(6, 10), slice(6, 10))

    def logits(images: Images) -> np.ndarray:
        return 2.0 * images[:, *middle].mean(axis=(1, 2)) + 2.0 * images[:, *place].mean(axis=(1, 2)) - 1.0

    return Model(logits, lambda images: images.reshape(len(images), -1))


def seen(rng: np.random.Generator, patients: int = 200, sites: int = 2) -> Seen:
    """Noise with a finding in the middle of the ill, and a calm corner; machine, site and sex tell nothing."""
    truth = rng.random(patients) < 0.4
    images = rng.normal(size=(patients, SIDE, SIDE)).astype(np.float32)
    images[:, :4, :4] *= 0.1
    images[truth, 6:10, 6:10] += 0.2
    attributes = {
        "site": rng.choice([f"site-{n}" for n in range(sites)], patients),
        "manufacturer": rng.choice(MACHINES, patients),
        "sex": rng.choice(["F", "M"], patients),
    }
    return Seen(images, truth, np.arange(patients), attributes)


def swapped(
    rng: np.random.Generator, link: float, moves: float, patients: int = 240, noise: float = 1.0
) -> Counterfactual:
    """Two machines at two sites.

    Args:
        rng: of everything.
        link: how much likelier the ill are on the second machine than the healthy.
        moves: by how much the second machine moves the logit.
        patients: of both sites.
        noise: standard deviation of what else the second machine does to a patient's logit.
    """
    truth = np.arange(patients) % 2 == 0
    sites = np.where(np.arange(patients) < patients // 2, "north", "south")
    own = (rng.random(patients) < 0.5 + link / 2 * np.where(truth, 1, -1)).astype(np.int64)
    first = rng.normal(size=patients) + 1.5 * truth
    second = first + moves + noise * rng.normal(size=patients)
    return Counterfactual(np.stack([first, second], axis=1), MACHINES, truth, sites, own)
