"""Is what was drawn what is applied, within its strengths, to image and mask alike?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client import augment
from common.plan_training import Augmentation

FULL = Augmentation(rotation_deg=15, brightness=0.2, contrast=0.3, noise_std=0.1, elastic_px=3)


def images(count=4, rows=24, columns=24) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((count, 1, rows, columns))).float()


def drawn(strengths, count=4, seed=0):
    return augment.draw(np.random.default_rng(seed), strengths, count)


def test_the_same_draws_give_the_same_images_and_leave_the_input_alone():
    x = images()
    before = x.clone()
    draws = drawn(FULL)
    assert torch.equal(augment.apply(draws, x), augment.apply(draws, x))
    assert torch.equal(x, before)
    assert not torch.equal(augment.apply(drawn(FULL, seed=1), x), augment.apply(draws, x))


def test_a_part_of_the_batch_is_changed_as_it_is_within_the_whole():
    x, draws = images(5), drawn(FULL, 5)
    some = np.array([3, 1])
    assert torch.allclose(augment.apply(draws.take(some), x[some]), augment.apply(draws, x)[some], atol=1e-6)


def test_no_strength_is_no_change():
    x = images()
    assert torch.allclose(augment.apply(drawn(Augmentation()), x), x, atol=1e-6)


def test_draws_stay_within_their_strengths_and_use_them():
    draws = drawn(FULL, 4000)
    for values, strength in (
        (draws.angle_deg, 15),
        (draws.brightness, 0.2),
        (draws.contrast - 1, 0.3),
        (draws.displacement_px, 3),
    ):
        assert 0.98 * strength < np.abs(values).max() <= strength + 1e-6
        assert abs(values.mean()) < 0.06 * strength
    assert draws.noise_std.min() >= 0
    assert draws.noise_std.max() <= 0.1


@pytest.mark.parametrize("angle", [15.0, -15.0])
@pytest.mark.parametrize("shape", [(33, 33), (25, 41)])
def test_a_rotation_turns_by_its_angle_whatever_the_shape(angle, shape):
    """A spot right of the centre goes up for a positive angle: counter-clockwise as one sees it."""
    rows, columns = shape
    x = torch.zeros(1, 1, rows, columns)
    x[0, 0, rows // 2, columns // 2 + 10] = 1
    draws = drawn(Augmentation(rotation_deg=15), 1)
    draws.angle_deg[:] = angle
    out = augment.apply(draws, x)[0, 0]
    mass = out / out.sum()
    row = float((mass.sum(1) * torch.arange(rows)).sum()) - rows // 2
    column = float((mass.sum(0) * torch.arange(columns)).sum()) - columns // 2
    assert row == pytest.approx(-10 * np.sin(np.deg2rad(angle)), abs=0.3)
    assert column == pytest.approx(10 * np.cos(np.deg2rad(angle)), abs=0.3)


def test_masks_move_with_their_images_and_keep_their_values():
    masks = torch.zeros(3, 1, 48, 48, dtype=torch.uint8)
    masks[:, :, 10:22, 14:34] = 2
    draws = drawn(Augmentation(rotation_deg=15, elastic_px=4), 3)
    moved = augment.apply_to_masks(draws, masks)
    assert moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) == {0, 2}
    as_image = augment.apply(draws, masks.float())
    assert ((as_image > 1) == (moved > 1)).float().mean() > 0.98
    assert not torch.equal(moved, masks)


def test_light_and_noise_leave_masks_alone():
    masks = images() > 0
    draws = drawn(Augmentation(brightness=0.5, contrast=0.5, noise_std=0.5))
    assert torch.equal(augment.apply_to_masks(draws, masks), masks)


def test_brightness_contrast_and_noise_do_what_they_say():
    x = images(2, 64, 64)
    draws = drawn(Augmentation(brightness=0.5, contrast=0.5), 2)
    out = augment.apply(draws, x)
    for i in range(2):
        assert float(out[i].mean() - x[i].mean()) == pytest.approx(draws.brightness[i], abs=1e-5)
        assert float(out[i].std() / x[i].std()) == pytest.approx(draws.contrast[i], rel=1e-4)
    noisy = drawn(Augmentation(noise_std=0.5), 2)
    assert float((augment.apply(noisy, x) - x)[0].std()) == pytest.approx(noisy.noise_std[0], rel=0.05)


def test_one_image_never_enters_another():
    """Changing one image of the batch changes only its own result: allowed under DP."""
    x, draws = images(), drawn(FULL)
    other = x.clone()
    other[2] += 5
    same = (augment.apply(draws, x) == augment.apply(draws, other)).flatten(1).all(dim=1)
    assert same.tolist() == [True, True, False, True]


def test_nothing_is_ever_flipped():
    x = torch.zeros(200, 1, 24, 24)
    x[:, :, :, 16:] = 1
    out = augment.apply(drawn(FULL, 200), x)
    assert (out[:, :, :, 12:].mean(dim=(1, 2, 3)) > out[:, :, :, :12].mean(dim=(1, 2, 3))).all()
