"""No patient moves the clipped sum by more than C: every network, in the float32 that hospitals train in.

The mathematics of it is in test_clipping, in double precision. Here everything rounds that rounds in a hospital,
and the company of a patient changes with them: a batch of another size takes other paths through the processor.
The allowance for all of it is `MARGIN`; the bound itself has none.
"""

from __future__ import annotations

import pytest
import torch

from client.privacy.clipping import MARGIN, Labelled
from client.privacy.engine import PatientGradients
from common.models.losses import Loss
from tests.contracts.test_networks import PIXELS, SMALL, small

LOSS = Loss(exclusive=False, gamma=0.0, positive_weight=2.0)
CLIP = 1e-3
"""Far below every gradient's norm, so that each patient would move the sum by C (1 - MARGIN) and not an inch less."""
LOUD = 30.0
"""Times the deviation of everybody else's pixels."""
LARGE = ("densenet121", "resnet50", "efficientnet-b0")
"""Ten seconds and more for two hundred images."""


def a_batch(counts: list[int], loud: int) -> Labelled:
    """Patients with so many images each, one of them bright beyond measure."""
    draw = torch.Generator().manual_seed(11)
    slots = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.randn(len(slots), 1, PIXELS, PIXELS, generator=draw)
    x[slots == loud] *= LOUD
    y = (torch.rand(len(slots), 2, generator=draw) < 0.5).float()
    return Labelled(x, y, slots)


def without(batch: Labelled, patient: int) -> Labelled:
    keep = batch.slots != patient
    _, left = torch.unique(batch.slots[keep], return_inverse=True)
    return Labelled(batch.inputs[keep], batch.targets[keep], left)


def moves(net, batch: Labelled, patients: list[int]) -> list[float]:
    """How far each of these patients moves the float32 sum, as a multiple of C."""
    with PatientGradients(net, LOSS) as gradients:

        def total(some: Labelled) -> torch.Tensor:
            return gradients.clipped_sum(some, CLIP, torch.empty(gradients.size)).double()

        whole = total(batch)
        return [float((whole - total(without(batch, patient))).norm() / CLIP) for patient in patients]


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("name", SMALL)
def test_no_patient_moves_the_float32_sum_by_more_than_the_clip(name, images):
    """K images of each patient; one patient with a single image; a loud one."""
    counts = [images, images, 1, images, images]
    found = moves(small(name).train(), a_batch(counts, loud=3), [0, 2, 3])
    assert max(found) <= 1
    assert min(found) > 1 - 2 * MARGIN, "each was cut to the clip, and not far below it"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in SMALL]
)
def test_a_patient_with_two_hundred_images_moves_it_no_further(name):
    """No K thins them out here: the engine alone must hold them."""
    found = moves(small(name).train(), a_batch([1, 200, 2], loud=1), [1])
    assert max(found) <= 1
    assert min(found) > 1 - 2 * MARGIN
