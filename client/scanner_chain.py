"""Random chains of what scanners do to an image: so that a network does not learn one machine's look.

Zhang, Wang, Yang et al., "Generalizing Deep Learning for Medical Image Segmentation to Unseen Domains via Deep Stacked
Transformation" (BigAug), IEEE TMI 39(7), 2020: a stack of changes, each with probability one half; appearance is what
differs most between machines. Here four stages, in an order of chance, and with a strength s in (0, 1]:

    tone       characteristic curve: the image's range to the power exp(s * u), u uniform in [-1, 1]
    sharpness  Gaussian blur of up to 1.5 s pixels, or as much unsharp masking (focal spot, detector, edge enhancement)
    noise      white, of up to 0.3 s deviations of the image; less where it is bright, as photons are counted
    exposure   gain of exp(0.5 s u) about the mean, and an offset of up to 0.5 s deviations

Chance is drawn first and recorded; the same draws and images give the same result. Each image is changed by itself, so that
it is allowed under patient-level privacy. Generic: no machine's values are in it, virtual ones' neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Float32 = npt.NDArray[np.float32]
STAGES: Final = ("tone", "sharpness", "noise", "exposure")
CHANCE: Final = 0.5
"""Of each stage for each image."""
BLUR_PX: Final = 1.5
NOISE: Final = 0.3
GAIN: Final = 0.5
OFFSET: Final = 0.5


@dataclass(frozen=True)
class Chain:
    """What was drawn for each of n images; a strength of 0 leaves a stage out."""

    order: npt.NDArray[np.int64]
    """[n, 4] which stage comes first, second, ...; numbers of `STAGES`."""
    tone: Float32
    """[n] logarithm of the exponent."""
    blur_px: Float32
    """[n] standard deviation; negative: sharpened by that much."""
    noise_std: Float32
    """[n] in deviations of the image."""
    noise_seed: npt.NDArray[np.int64]
    """[n]"""
    gain: Float32
    """[n] logarithm."""
    offset: Float32
    """[n] in deviations of the image."""

    def take(self, which: npt.NDArray[np.int64]) -> Chain:
        """The draws of some of the images."""
        return Chain(**{name: values[which] for name, values in vars(self).items()})


def draw(rng: np.random.Generator, strength: float, images: int) -> Chain:
    """Draw the chains of so many images."""

    def sometimes(most: float) -> Float32:
        drawn = rng.uniform(-most, most, images) * (rng.random(images) < CHANCE)
        return drawn.astype(np.float32)

    return Chain(
        order=np.argsort(rng.random((images, len(STAGES))), axis=1).astype(np.int64),
        tone=sometimes(strength),
        blur_px=sometimes(BLUR_PX * strength),
        noise_std=np.abs(sometimes(NOISE * strength)),
        noise_seed=rng.integers(2**62, size=images),
        gain=sometimes(GAIN * strength),
        offset=sometimes(OFFSET * strength),
    )


def apply(chain: Chain, images: Tensor) -> Tensor:
    """The changed images, float32 [n, channels, rows, columns]; the input is left as it was."""
    steps = (_tone, _sharpness, _noise, _exposure)
    changed = []
    for number, image in enumerate(images):
        for stage in chain.order[number]:
            image = steps[stage](image, chain, number)  # noqa: PLW2901 - one image on its way through the chain
        changed.append(image)
    return torch.stack(changed) if changed else images


def _tone(image: Tensor, chain: Chain, number: int) -> Tensor:
    power = math.exp(float(chain.tone[number]))
    low, high = float(image.min()), float(image.max())
    if power == 1.0 or high <= low:
        return image
    return ((image - low) / (high - low)) ** power * (high - low) + low


def _sharpness(image: Tensor, chain: Chain, number: int) -> Tensor:
    width = float(chain.blur_px[number])
    if width == 0.0:
        return image
    blurred = _blurred(image, abs(width))
    return blurred if width > 0 else 2 * image - blurred


def _noise(image: Tensor, chain: Chain, number: int) -> Tensor:
    std = float(chain.noise_std[number]) * float(image.std())
    if std == 0.0:
        return image
    rng = np.random.default_rng(int(chain.noise_seed[number]))
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)).to(image.device)
    low, high = float(image.min()), float(image.max())
    # Bright is dense here: few photons came through, and their count is the less certain.
    scale = 0.5 + (image - low) / (high - low)
    return image + noise * scale * std


def _exposure(image: Tensor, chain: Chain, number: int) -> Tensor:
    gain, offset = math.exp(float(chain.gain[number])), float(chain.offset[number])
    if gain == 1.0 and offset == 0.0:
        return image
    mean = image.mean()
    return (image - mean) * gain + mean + offset * image.std()


def _blurred(image: Tensor, width: float) -> Tensor:
    reach = max(1, math.ceil(3 * width))
    places = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-(places**2) / (2 * width**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    rows, columns = image.shape[-2:]
    flat = image.reshape(-1, 1, rows, columns)
    wide = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), "replicate"), kernel)
    tall = functional.conv2d(functional.pad(wide, (0, 0, reach, reach), "replicate"), kernel.mT)
    return tall.reshape(image.shape)
