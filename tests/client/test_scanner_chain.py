"""Random chains: recorded, replayed, one image at a time, and as strong as they say."""

from __future__ import annotations

import numpy as np
import torch

from client import augment, scanner_chain
from client.scanner_chain import Chain
from common.plan_training import Augmentation


def pictures(count=6, side=24):
    rng = np.random.default_rng(3)
    smooth = rng.standard_normal((count, 1, side, side)).cumsum(-1).cumsum(-2)
    return torch.from_numpy(((smooth - smooth.mean()) / smooth.std()).astype(np.float32))


def only(count=1, **values):
    """A chain in which nothing but the named stages does anything."""
    nothing = np.zeros(count, np.float32)
    fields = dict.fromkeys(("tone", "blur_px", "noise_std", "gain", "offset"), nothing)
    order = np.tile(np.arange(4), (count, 1))
    return Chain(order=order, noise_seed=np.arange(count), **{**fields, **values})


def test_the_same_draws_give_the_same_bits_in_whole_and_in_parts():
    """Batches are cut to what fits on a device; a picture's chain must not depend on where."""
    images, chain = pictures(), scanner_chain.draw(np.random.default_rng(1), 1.0, 6)
    whole = scanner_chain.apply(chain, images)
    parts = [
        scanner_chain.apply(chain.take(which), images[torch.from_numpy(which)])
        for which in (np.array([0, 1]), np.array([2, 3, 4]), np.array([5]))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, images)


def test_one_image_never_moves_another():
    images, chain = pictures(), scanner_chain.draw(np.random.default_rng(1), 1.0, 6)
    other = images.clone()
    other[0] += 5.0
    one, two = scanner_chain.apply(chain, images), scanner_chain.apply(chain, other)
    assert torch.equal(one[1:], two[1:])


def test_half_of_the_stages_happen_and_every_order_comes():
    chain = scanner_chain.draw(np.random.default_rng(2), 1.0, 4000)
    for drawn in (chain.tone, chain.blur_px, chain.noise_std, chain.gain, chain.offset):
        assert 0.46 < (drawn != 0).mean() < 0.54
    assert len({tuple(row) for row in chain.order}) == 24
    assert np.abs(chain.blur_px).max() <= scanner_chain.BLUR_PX
    weak = scanner_chain.draw(np.random.default_rng(2), 0.1, 4000)
    np.testing.assert_allclose(weak.tone, 0.1 * chain.tone, rtol=1e-5)


def test_each_stage_by_hand():
    images = pictures(1)
    low, high = images.min(), images.max()
    tone = scanner_chain.apply(only(tone=np.log(np.float32([2.0]))), images)
    torch.testing.assert_close(tone, ((images - low) / (high - low)) ** 2 * (high - low) + low)
    exposure = scanner_chain.apply(only(gain=np.log(np.float32([1.5])), offset=np.float32([0.2])), images)
    mean = images.mean()
    torch.testing.assert_close(exposure, (images - mean) * 1.5 + mean + 0.2 * images.std())
    spot = torch.zeros(1, 1, 33, 33)
    spot[0, 0, 16, 16] = 1.0
    blurred = scanner_chain.apply(only(blur_px=np.float32([1.2])), spot)[0, 0]
    places = torch.arange(33) - 16.0
    assert abs(float(blurred.sum()) - 1) < 1e-4
    assert abs(float((blurred.sum(0) * places**2).sum()) - 1.2**2) < 0.02 * 1.2**2
    sharp = scanner_chain.apply(only(blur_px=np.float32([-1.2])), spot)[0, 0]
    torch.testing.assert_close(sharp + blurred, 2 * spot[0, 0])
    noisy = scanner_chain.apply(only(noise_std=np.float32([0.2])), images.expand(1, 1, 24, 24))
    assert 0.05 < float((noisy - images).std() / images.std()) < 0.4


def test_the_order_of_stages_matters_and_is_the_drawn_one():
    images = pictures(1)
    chain = only(tone=np.float32([0.8]), blur_px=np.float32([1.0]))
    turned = Chain(**{**vars(chain), "order": chain.order[:, ::-1].copy()})
    assert not torch.allclose(scanner_chain.apply(chain, images), scanner_chain.apply(turned, images))


def test_an_augmentation_draws_a_chain_only_where_the_plan_asks_for_one():
    rng = np.random.default_rng(0)
    assert augment.draw(rng, Augmentation(rotation_deg=5.0), 3).chain is None
    strengths = Augmentation(scanner=0.5)
    assert strengths.active
    draws = augment.draw(rng, strengths, 6)
    assert len(draws.take(np.array([1, 4]))) == 2
    images = pictures()
    moved = augment.apply(draws, images)
    torch.testing.assert_close(moved, scanner_chain.apply(draws.chain, images))
