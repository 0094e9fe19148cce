"""The weights of the text detector, made anew.

    python -m simulations.text_training client/deid/text/detect.toml FOLDER...

Virtual images, and where folders are named every second or further image of them, with invented text at random places,
sizes, contrasts and turns, at full, half and quarter size; the network learns which squares lie in a line of letters.
Squares beside text and text of a size that another level is meant for do not count. Real images may hold text of
their own at their edges, so only their middle counts.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
import torch

from client.deid.text.detect import CELL, COARSEST, DILATIONS, LEVELS, MAPS, SMALLEST, stroke_maps
from simulations.text_corpus import BITS, FONTS, MODALITIES, Modality, background, draw_text, words
from simulations.text_images import read_image

Floats = npt.NDArray[np.float32]

IMAGES: Final[dict[Modality, int]] = {"DX": 260, "CT": 110, "MR": 200, "US": 120}
REAL: Final = 240
"""Images of each folder, spread over it; the others are left for measuring."""
MIDDLE: Final = (0.15, 0.85)
"""Part of a real image's sides that counts."""
COPIES: Final = 3
"""Each background is used so often, with other text."""
WIDTH: Final = 12
STEPS: Final = 9_000
BATCH, CROP = 16, 48
RATE: Final = 6e-3
HEIGHTS: Final = (5.0, 34.0)
"""Pixels of a letter that a level is meant for."""
IGNORED: Final = -1.0


@dataclass(frozen=True, eq=False)
class Example:
    """Stroke maps of one level and what its squares are: 1 text, 0 none, -1 does not count."""

    maps: Floats
    truth: Floats


def examples(seed: int, folders: Sequence[Path] = ()) -> Iterator[Example]:
    """Every level of every image."""
    for kind, modality in enumerate(MODALITIES):
        for number in range(IMAGES[modality]):
            ground = background(modality, np.random.default_rng([seed, kind, number]))
            for copy in range(COPIES):
                rng = np.random.default_rng([seed, kind, number, copy])
                yield from _levels(*written(ground, BITS[modality], rng))
    for kind, folder in enumerate(folders):
        for number, ground in enumerate(real_images(folder)):
            for copy in range(2):
                rng = np.random.default_rng([seed, 100 + kind, number, copy])
                pixels, heights = (
                    written(ground, 12, rng) if copy else (ground.astype(np.float32), ground * 0.0)
                )
                for example in _levels(pixels, heights.astype(np.float32)):
                    yield _middle(example)


def real_images(folder: Path) -> Iterator[npt.NDArray[np.uint16]]:
    """Radiographs and slices of a folder, stretched over 12 bits; pictures that are no DICOM count as radiographs."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths[:: max(2, len(paths) // REAL)]:
        found = read_image(path)
        if found is not None and found[0] != "US" and found[1].ndim == 2:
            pixels = found[1].astype(np.float32) - found[1].min()
            yield np.rint(pixels * (4095 / max(float(pixels.max()), 1.0))).astype(np.uint16)


def _middle(example: Example) -> Example:
    truth = np.full_like(example.truth, IGNORED)
    rows, cols = (slice(*(round(part * side) for part in MIDDLE)) for side in truth.shape)
    truth[rows, cols] = example.truth[rows, cols]
    return Example(example.maps, np.where(example.truth == 1, 1.0, truth).astype(np.float32))


def written(ground: npt.NDArray[np.uint16], bits: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Up to five lines on a background; with each pixel, the height of the letters it belongs to, else 0."""
    pixels, heights = ground.astype(np.float32), np.zeros(ground.shape, np.float32)
    for _ in range(int(rng.integers(6))):
        _write(pixels, heights, bits, rng)
    return np.clip(np.rint(pixels), 0, 2**bits - 1), heights


def train(seed: int = 1, folders: Sequence[Path] = ()) -> list[tuple[Floats, Floats]]:
    """Weights [inputs, filters] and biases of every layer, as `client.deid.text.detect` uses them."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    known = list(examples(seed, folders))
    network = _network()
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        batch = [_crop(known[int(rng.integers(len(known)))], rng) for _ in range(BATCH)]
        maps = torch.from_numpy(np.stack([one.maps for one in batch])).permute(0, 3, 1, 2)
        truth = torch.from_numpy(np.stack([one.truth for one in batch]))
        judged, counts = network(maps)[:, 0], truth >= 0
        loss = torch.nn.functional.binary_cross_entropy_with_logits(judged[counts], truth[counts])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimiser.step()
        schedule.step()
    return [_as_numpy(layer) for layer in network if isinstance(layer, torch.nn.Conv2d)]


def as_toml(layers: list[tuple[Floats, Floats]]) -> str:
    """The weights as text: half-precision numbers, little endian, base64."""
    lines = [
        "# Weights of the text detector. Made by `python -m simulations.text_training`; do not edit.",
        "",
    ]
    for weight, bias in layers:
        raw = base64.b64encode(np.vstack([weight, bias]).astype("<f2").tobytes()).decode("ascii")
        lines += ["[[layer]]", f"inputs = {weight.shape[0]}", f"filters = {weight.shape[1]}", 'numbers = """']
        lines += [raw[at : at + 100] for at in range(0, len(raw), 100)]
        lines += ['"""', ""]
    return "\n".join(lines)


def _write(pixels: Floats, heights: Floats, bits: int, rng: np.random.Generator) -> None:
    tall = float(np.exp(rng.uniform(np.log(6), np.log(48))))
    text = words(rng)[: int(rng.integers(3, 24))]
    ink = draw_text(text, round(tall), FONTS[int(rng.integers(len(FONTS)))])
    ink = ink[:, : min(pixels.shape) - 8]
    if rng.random() < 0.45:
        ink = np.rot90(ink, 1 if rng.random() < 0.5 else 3)
    rooms = [side - own for side, own in zip(pixels.shape, ink.shape, strict=True)]
    if min(rooms) < 1:
        return
    top, left = int(rng.integers(rooms[0])), int(rng.integers(rooms[1]))
    if rng.random() < 0.4:
        top = min(rooms[0], 3) if rng.random() < 0.5 else max(0, rooms[0] - 3)
    at = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
    if heights[at].any():
        return
    heights[at] = tall
    highest = float(2**bits - 1)
    if rng.random() < 0.1:
        pixels[max(0, top - 3) : top + ink.shape[0] + 3, max(0, left - 3) : left + ink.shape[1] + 3] = 0
    pixels[at] += ink * (_level(pixels, pixels[at], highest, rng) - pixels[at])


def _level(pixels: Floats, under: Floats, highest: float, rng: np.random.Generator) -> float:
    if rng.random() < 0.15:
        return highest
    low, high = np.percentile(pixels, (0.5, 99.5))
    step = max(float(high - low), 1.0) * np.exp(rng.uniform(np.log(16), np.log(200))) / 255
    ground, sign = float(np.median(under)), 1 if rng.random() < 0.6 else -1
    level = ground + sign * step
    return float(level if 0 <= level <= highest else np.clip(ground - sign * step, 0, highest))


def _levels(pixels: Floats, heights: Floats) -> Iterator[Example]:
    level, tall = pixels, heights
    for step in range(LEVELS):
        if min(level.shape) < (COARSEST if step else SMALLEST):
            return
        yield Example(stroke_maps(level), _truth(tall, 2**step))
        level = cv2.resize(level, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        tall = cv2.resize(tall, (level.shape[1], level.shape[0]), interpolation=cv2.INTER_NEAREST)


def _truth(heights: Floats, scale: int) -> Floats:
    rows, cols = heights.shape[0] // CELL, heights.shape[1] // CELL
    squares = heights[: rows * CELL, : cols * CELL].reshape(rows, CELL, cols, CELL)
    tall = squares.max(axis=(1, 3)) / scale
    share = (squares > 0).mean(axis=(1, 3))
    near = cv2.dilate((share > 0).view(np.uint8), np.ones((5, 5), np.uint8)) > 0
    meant = (tall >= HEIGHTS[0]) & (tall <= HEIGHTS[1])
    return np.where((share >= 0.5) & meant, 1.0, np.where(near, IGNORED, 0.0)).astype(np.float32)


def _crop(example: Example, rng: np.random.Generator) -> Example:
    maps, truth = example.maps, example.truth
    short = [max(0, CROP - side) for side in truth.shape]
    if any(short):
        pad = [(0, short[0]), (0, short[1])]
        maps = np.pad(maps, [*pad, (0, 0)])
        truth = np.pad(truth, pad, constant_values=IGNORED)
    top, left = (int(rng.integers(side - CROP + 1)) for side in truth.shape)
    maps, truth = maps[top : top + CROP, left : left + CROP], truth[top : top + CROP, left : left + CROP]
    if rng.random() < 0.5:
        maps, truth = maps[::-1], truth[::-1]
    if rng.random() < 0.5:
        maps, truth = maps[:, ::-1], truth[:, ::-1]
    if rng.random() < 0.35:
        maps, truth = maps[..., [0, 1, 3, 2, 4, 5, 6]].transpose(1, 0, 2), truth.T  # turned by 90 degrees
    if rng.random() < 0.5:
        maps = maps[..., [1, 0, 2, 3, 5, 4, 6]]  # bright for dark
    return Example(np.ascontiguousarray(maps), np.ascontiguousarray(truth))


def _network() -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    channels = [MAPS, *[WIDTH] * len(DILATIONS)]
    for (here, there), dilation in zip(pairwise(channels), DILATIONS, strict=True):
        layers += [torch.nn.Conv2d(here, there, 3, padding=dilation, dilation=dilation), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(WIDTH, 1, 1))


def _as_numpy(layer: torch.nn.Conv2d) -> tuple[Floats, Floats]:
    weight = layer.weight.detach().permute(2, 3, 1, 0).reshape(-1, layer.out_channels)
    bias = layer.bias.detach() if layer.bias is not None else torch.zeros(layer.out_channels)
    return weight.numpy(), bias.numpy()


def main() -> None:
    """Write the weights to the file that is named first, with the images of the folders named after it."""
    target, *folders = map(Path, sys.argv[1:])
    target.write_text(as_toml(train(folders=folders)), encoding="utf-8")


if __name__ == "__main__":
    main()
