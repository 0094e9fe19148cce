"""From the focal spot through collimator and patient: the primary beam."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from simulations.scanners.chain import (
    BLADES,
    BONE_PER_KV,
    GLYPHS,
    LEAD,
    PENUMBRA_MM,
    REFERENCE_KVP,
    SOFT_PER_KV,
)
from simulations.scanners.stages import FloatMap
from simulations.scanners.xray.exposure import Exposure, Frame
from simulations.scanners.xray.machine import Tube

STEEPEST_DEG: Final = 1.0
"""A ray must leave the target at least so far above its face; nearer, nothing comes out."""


def projection(frame: Frame) -> None:
    """The subject's line integrals at this voltage, on the panel's pixels.

    Formula: L = s_soft(kVp) L_soft + s_bone(kVp) L_bone, s = 1 + k (kVp - 120), k_soft = -0.0020, k_bone = -0.0060;
    read `step` pixels apart about the centre, linearly between neighbours.
    Unit: dimensionless line integral, one effective energy (no beam hardening within an image).
    Source: NISTIR 5632: water falls by 0.6% and cortical bone by 1.7% per keV at 60 keV; 0.37 keV per kV.
    """
    subject, exposure = frame.subject, frame.exposure
    away = exposure.kvp - REFERENCE_KVP
    mu = subject.soft * np.float32(1 + SOFT_PER_KV * away)
    mu += subject.bone * np.float32(1 + BONE_PER_KV * away)
    frame.mu = resample(mu, exposure.step)
    frame.image = frame.mu


def resample(image: FloatMap, step: float) -> FloatMap:
    """The same number of pixels, `step` of the old ones apart about the centre; the border repeats."""
    if step == 1.0:
        return image
    rows, columns = image.shape
    back = np.array([[step, 0, (1 - step) * (columns - 1) / 2], [0, step, (1 - step) * (rows - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(image, back, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE),
        dtype=np.float32,
    )


def beam(frame: Frame) -> None:
    """The open beam: heel effect along the tube, distance to the focal spot.

    Formula: I(x, y) = exp(-m (1/sin(a - p) - 1/sin a)) cos^3, p = atan(y / D) towards the anode, a the target's angle, m mu
    times depth in the target; cos^3 = (1 + x^2/D^2)^-1.5 (1 + y^2/D^2)^-1.5 (separable: off by at most 1.5 x^2 y^2 / D^4).
    Unit: fluence by that of the central ray.
    Source: Beer's law along the way out of the target; inverse square and oblique incidence, geometry.
    """
    exposure = frame.exposure
    rows, columns = frame.image.shape
    across, down = _axis(columns, frame.pitch_mm), _axis(rows, frame.pitch_mm)
    fall = heel(exposure.machine.tube, down, exposure.distance_mm)
    narrow = (1 + (across / exposure.distance_mm) ** 2) ** -1.5
    fall = fall * (1 + (down / exposure.distance_mm) ** 2) ** -1.5
    frame.image = np.outer(fall.astype(np.float32), narrow.astype(np.float32))


def heel(tube: Tube, down_mm: FloatMap, distance_mm: float) -> FloatMap:
    """Relative intensity along the tube's axis, 1 on the central ray."""
    towards = np.degrees(np.arctan(down_mm / distance_mm)) * (1 if tube.anode_down else -1)
    leaving = np.radians(np.maximum(tube.target_angle_deg - towards, STEEPEST_DEG))
    way = 1 / np.sin(leaving) - 1 / np.sin(np.radians(tube.target_angle_deg))
    return np.asarray(np.exp(-tube.target_depth * way))


def collimator(frame: Frame) -> None:
    """Blades close the field; a little leaks through, and the edge is a ramp.

    Formula: I is multiplied by c(x) c(y), c = clip(d / w + 1/2, leak, 1), d the distance inside the blade, w = 3 mm, leak = 0.002.
    Unit: fluence by that of the central ray.
    Source: penumbra w = focal spot times (distance behind the blades by distance before), geometry; leak of 2 mm of lead with
    off-focus radiation, our choice.
    """
    rows, columns = frame.image.shape
    left, right, top, bottom = frame.exposure.field_mm
    frame.across = _open(columns, frame.pitch_mm, left, right)
    frame.down = _open(rows, frame.pitch_mm, top, bottom)
    frame.image = frame.image * np.outer(frame.down, frame.across)


def patient(frame: Frame) -> None:
    """What the patient lets through.

    Formula: P = I exp(-L).
    Unit: primary fluence by that of the open central ray.
    Source: Beer and Lambert.
    """
    frame.image = frame.image * np.exp(-frame.mu)


def letter(frame: Frame) -> None:
    """A lead letter in the beam, where the site's markers are of lead.

    Formula: P is multiplied by 0.03 under the letter.
    Unit: primary fluence by that of the open central ray.
    Source: 1 mm of lead at 60 keV, with what leaks around (NISTIR 5632); form and place are the site's habit.
    """
    if not frame.exposure.marker.stamped:
        shape, rows, columns = glyph(frame.exposure, frame.image.shape, frame.pitch_mm)
        frame.image[rows, columns][shape] *= LEAD


def glyph(exposure: Exposure, size: tuple[int, ...], pitch_mm: float) -> tuple[FloatMap, slice, slice]:
    """The letter's pixels (bool) and the rows and columns they cover, cut at the border."""
    marker = exposure.marker
    scale = max(1, round(marker.height_mm / 7 / pitch_mm))
    strokes = np.array([[c == "1" for c in line] for line in GLYPHS[marker.letter]])
    shape = np.kron(strokes, np.ones((scale, scale), dtype=bool))
    centre = round(marker.across_mm / pitch_mm)
    left = (size[1] - centre if marker.letter == "L" else centre) - shape.shape[1] // 2
    left = max(0, min(left, size[1] - shape.shape[1]))
    top = max(0, min(round(marker.down_mm / pitch_mm), size[0] - shape.shape[0]))
    shape = shape[: size[0], : size[1]]
    return shape, slice(top, top + shape.shape[0]), slice(left, left + shape.shape[1])


def _axis(count: int, pitch_mm: float) -> FloatMap:
    """Millimetres from the central ray."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * pitch_mm)


def _open(count: int, pitch_mm: float, near_mm: float, far_mm: float) -> FloatMap:
    place = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * np.float32(pitch_mm)
    inner = np.minimum(place - np.float32(near_mm), np.float32(count * pitch_mm - far_mm) - place)
    return np.asarray((inner / np.float32(PENUMBRA_MM) + np.float32(0.5)).clip(BLADES, 1), dtype=np.float32)
