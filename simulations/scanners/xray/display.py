"""What software makes of the exposure: from quanta to the display values that are stored."""

from __future__ import annotations

from typing import Final

import numpy as np

from simulations.scanners.xray.beam import glyph
from simulations.scanners.xray.exposure import Frame
from simulations.scanners.xray.sharpness import bell, convolve

LEAST: Final = np.float32(0.5)
"""Half a quantum: what readout noise may make of none has no logarithm."""
SPARSE: Final = slice(None, None, 4)
LN10: Final = 2.302585


def density(frame: Frame) -> None:
    """The logarithm, and the reader's own choice of what is middle grey.

    Formula: v = gamma (median - log10 N) + anchor, median of log10 N in the collimated field (every fourth pixel).
    Unit: display value, 0 black to 1 white, bright where much is absorbed.
    Source: logarithm makes Beer's law linear; automatic ranging as exposure index software does (IEC 62494-1).
    """
    display = frame.exposure.machine.display
    value = np.log(np.maximum(frame.image, LEAST))
    inside = np.outer(frame.down[SPARSE] > 0.5, frame.across[SPARSE] > 0.5)
    seen = value[SPARSE, SPARSE][inside]
    middle = float(np.median(seen)) if seen.size else 0.0
    value *= np.float32(-display.gamma / LN10)
    value += np.float32(display.anchor + display.gamma / LN10 * middle)
    frame.image = value


def edge(frame: Frame) -> None:
    """Edge enhancement by an unsharp mask.

    Formula: v + k (v - G v); transfer 1 + k (1 - exp(-2 (pi s f)^2)), f in cycles per mm at the panel.
    Unit: display value.
    Source: unsharp masking of storage phosphor systems (AAPM report 93, 2006).
    """
    display = frame.exposure.machine.display
    if not display.edge_gain:
        return
    sigma = display.edge_mm / frame.exposure.sample_mm
    smooth = convolve(frame.image, bell(sigma), bell(sigma))
    smooth *= np.float32(-display.edge_gain)
    smooth += np.float32(1 + display.edge_gain) * frame.image
    frame.image = smooth


def curve(frame: Frame) -> None:
    """The characteristic curve: straight in its middle, bent towards black and white.

    Formula: (1 - b) v + b / (1 + exp(-4 (v - 1/2))); slope gamma per decade at v = 1/2 for every bend b.
    Unit: display value.
    Source: Hurter & Driffield's curve as a sigmoid: DICOM PS3.3 C.11.2.1.3.1.
    """
    bend = frame.exposure.machine.display.bend
    if not bend:
        return
    # The same sigmoid by its tangent form, which NumPy does in one fast pass.
    sigmoid = np.tanh(2 * frame.image - 1)
    sigmoid *= np.float32(bend / 2)
    sigmoid += np.float32(bend / 2)
    sigmoid += np.float32(1 - bend) * frame.image
    frame.image = sigmoid


def window(frame: Frame) -> None:
    """The window preset that this console was left on.

    Formula: clip((v - c) / w + 1/2, 0, 1).
    Unit: display value, 0 to 1.
    Source: DICOM PS3.3 C.11.2.1.3.2 (linear exact).
    """
    chosen = frame.exposure.window
    value = frame.image * np.float32(1 / chosen.width)
    value += np.float32(0.5 - chosen.centre / chosen.width)
    frame.image = np.clip(value, 0, 1, out=value)


def digits(frame: Frame) -> None:
    """Whole numbers of so many bits.

    Formula: round(v (2^bits - 1)); adds variance 1/12 of a step squared.
    Unit: stored value, uint16.
    Source: Bennett, Bell Syst Tech J 27 (1948).
    """
    frame.image = np.rint(frame.image * np.float32((1 << frame.exposure.machine.display.bits) - 1))
    frame.pixels = frame.image.astype(np.uint16)


def shutter(frame: Frame) -> None:
    """Black outside the collimated field, on systems that do so.

    Formula: 0 where the collimator is less than half open.
    Unit: stored value.
    Source: DICOM PS3.3 C.7.6.11 (display shutter), burnt in as presentation images have it.
    """
    if frame.exposure.machine.display.shutter:
        frame.pixels *= np.outer(frame.down > 0.5, frame.across > 0.5)


def stamp(frame: Frame) -> None:
    """A letter written on the finished image, where the site's markers are digital.

    Formula: the largest stored value under the letter.
    Unit: stored value.
    Source: the site's habit; such tokens let a network tell hospitals apart (Zech et al., PLoS Med 15, 2018).
    """
    if frame.exposure.marker.stamped:
        shape, rows, columns = glyph(frame.exposure, frame.pixels.shape, frame.pitch_mm)
        frame.pixels[rows, columns][shape] = (1 << frame.exposure.machine.display.bits) - 1
