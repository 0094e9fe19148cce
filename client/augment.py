"""Random changes to training images: the chances are drawn first, recorded, and then applied.

Every change touches one image alone, so that augmentation is allowed under differential privacy;
nothing here mixes patients. There are no flips: a heart on the right side is a finding.

Geometry (rotation, elastic) moves image and mask through one resampling; contrast, brightness and
noise touch the image only, in this order, in units of a normalised image (standard deviation 1). A
random chain of what scanners do comes between the two (`client.scanner_chain`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from client import scanner_chain
from client.scanner_chain import Chain
from common.plan_training import Augmentation

CONTROL_POINTS: Final = 5
"""Elastic displacements are drawn on a coarse grid of this side and interpolated between."""

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """What was drawn for each of n images; with the same images it gives the same result again."""

    angle_deg: Float32
    """[n], counter-clockwise."""
    brightness: Float32
    """[n], added."""
    contrast: Float32
    """[n], factor about the image's mean."""
    noise_std: Float32
    """[n]."""
    noise_seed: npt.NDArray[np.int64]
    """[n]: the noise itself is made from it again."""
    displacement_px: Float32
    """[n, 2, CONTROL_POINTS, CONTROL_POINTS]: along columns, then along rows."""
    chain: Chain | None = None
    """Of scanners; None where the plan asks for none."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.angle_deg)

    def take(self, which: npt.NDArray[np.int64]) -> Draws:
        """The draws of some of the images."""
        own = {name: values[which] for name, values in vars(self).items() if name != "chain"}
        return Draws(**own, chain=self.chain and self.chain.take(which))


def draw(rng: np.random.Generator, strengths: Augmentation, images: int) -> Draws:
    """Draw the changes of `images` images, each uniform within plus or minus its strength."""

    def within(strength: float, *shape: int) -> Float32:
        return rng.uniform(-strength, strength, (images, *shape)).astype(np.float32)

    return Draws(
        angle_deg=within(strengths.rotation_deg),
        brightness=within(strengths.brightness),
        contrast=1 + within(strengths.contrast),
        noise_std=np.abs(within(strengths.noise_std)),
        noise_seed=rng.integers(2**62, size=images),
        displacement_px=within(strengths.elastic_px, 2, CONTROL_POINTS, CONTROL_POINTS),
        chain=scanner_chain.draw(rng, strengths.scanner, images) if strengths.scanner else None,
    )


def apply(draws: Draws, images: Tensor) -> Tensor:
    """The changed images, float32 [n, channels, rows, columns]; the input is left as it was."""
    moved = _move(draws, images, "bilinear")
    if draws.chain is not None:
        moved = scanner_chain.apply(draws.chain, moved)
    contrast, brightness = (_column(values, images) for values in (draws.contrast, draws.brightness))
    mean = moved.mean(dim=(1, 2, 3), keepdim=True)
    moved = (moved - mean) * contrast + mean + brightness
    if draws.noise_std.any():
        moved = moved + _noise(draws, images) * _column(draws.noise_std, images)
    return moved


def apply_to_masks(draws: Draws, masks: Tensor) -> Tensor:
    """The masks [n, channels, rows, columns] moved as `apply` moves their images; values stay exact."""
    return _move(draws, masks.to(torch.float32), "nearest").to(masks.dtype)


def _move(draws: Draws, images: Tensor, mode: str) -> Tensor:
    if not draws.angle_deg.any() and not draws.displacement_px.any():
        return images
    grid = _grid(draws, images)
    return functional.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def _grid(draws: Draws, images: Tensor) -> Tensor:
    """Where each output pixel comes from: [n, rows, columns, 2] in grid_sample's units."""
    rows, columns = images.shape[-2:]
    angle = np.deg2rad(draws.angle_deg)
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    aspect = np.float32(rows / columns)
    matrix = np.stack([cos, -sin * aspect, zero, sin / aspect, cos, zero], axis=1).reshape(-1, 2, 3)
    theta = torch.from_numpy(matrix.astype(np.float32)).to(images.device)
    grid = functional.affine_grid(theta, [len(draws), 1, rows, columns], align_corners=False)
    if draws.displacement_px.any():
        coarse = torch.from_numpy(draws.displacement_px).to(images.device)
        fine = functional.interpolate(coarse, size=(rows, columns), mode="bicubic", align_corners=True)
        unit = torch.tensor([2.0 / columns, 2.0 / rows], device=images.device)
        grid = grid + fine.permute(0, 2, 3, 1) * unit
    return grid


def _noise(draws: Draws, images: Tensor) -> Tensor:
    """Standard normal noise, each image's from its own seed, so that any subset can be replayed."""
    shape = images.shape[1:]
    each = [np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in draws.noise_seed]
    return torch.from_numpy(np.stack(each)).to(images.device)


def _column(values: Float32, images: Tensor) -> Tensor:
    return torch.from_numpy(values).to(images.device)[:, None, None, None]
