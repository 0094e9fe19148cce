"""What the bias chapter shows first: a virtual patient on every machine, what was hidden, where the evidence lies."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.report.pictures import grey, overlay
from common.types import FloatArray
from server.records_bias import Picture, Tile
from simulations.hospitals.machines import maker
from simulations.probes import cohort
from simulations.probes.contract import Counterfactual, Images, chances
from simulations.probes.occlusion import regions

_STRIPE: Final = np.array([213, 94, 0], dtype=np.uint8)
_SIDE: Final = 192
"""Rows and columns of a small picture after enlargement."""


def machines(
    scores: Counterfactual, who: Sequence[cohort.Guest], names: tuple[str, ...], seed: int
) -> Picture:
    """The healthy virtual patient whose score moves the most between machines, on each of them."""
    score = chances(scores.logits)
    reach = np.where(scores.truth, -1.0, score.max(axis=1) - score.min(axis=1))
    number = int(reach.argmax())
    images = cohort.pixels_of(who[number], names, seed)
    tiles = []
    for place, name in enumerate(names):
        mark = " (own machine)" if place == scores.own[number] else ""
        words = f"{maker(name)}{mark}: score {score[number, place]:.2f}"
        shown = png(grey(images[place].astype(np.float32)))
        tiles.append(Tile(words, shown, float(score[number, place])))
    title = "The healthy virtual patient whose score moves the most, on every machine"
    return Picture("machines", title, tuple(tiles))


def hidden(images: Images) -> Picture:
    """The average of all test images, and the regions that were hidden in every one of them."""
    average = grey(images.mean(axis=0))
    tiles = [Tile("Average of all test images", png(_large(average)))]
    for name, mask in regions(*average.shape).items():
        shown = np.repeat(average[:, :, None], 3, axis=2)
        shown[mask] = _STRIPE
        tiles.append(Tile(f"Hidden: {name}", png(_large(shown))))
    return Picture("hidden", "What was hidden, in every image alike", tuple(tiles))


def saliency(image: FloatArray, heat: FloatArray) -> Picture:
    """The average virtual chest under the average map of evidence."""
    share = (heat / heat.max() if heat.max() > 0 else heat).astype(np.float32)
    base = image.astype(np.float32)
    tiles = (
        Tile("Average of the virtual patients", png(_large(grey(base)))),
        Tile("Where the evidence lies, on average", png(_large(overlay(base, share)))),
    )
    return Picture("saliency", "Where the model looks", tiles)


def png(pixels: npt.NDArray[np.uint8]) -> str:
    """Base64 of [rows, columns] or [rows, columns, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _large(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    times = max(1, _SIDE // pixels.shape[0])
    return pixels.repeat(times, axis=0).repeat(times, axis=1)
