"""The process that draws one frame of an untrusted file: limited as the workers of intake are, mute, without keys.

It answers each line of JSON with one line of JSON and, where that says so, with the grey bytes of the picture. It
writes no picture format: whoever asked makes the PNG, so that nothing an image could do to this process
reaches a browser but levels of grey.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from client.deid.colour import is_colour
from client.deid.pixels import decode
from client.intake.limits import die_with_parent, limit_memory
from client.intake.outcome import Person
from client.intake.parse import MAX_FILE_BYTES, damaged, quiet, read, too_much
from client.intake.wrap import wrap
from client.preprocess.modality import to_units
from client.preprocess.presentation import is_inverted, presentation
from common.errors import FileRefused

Grey = npt.NDArray[np.float64]
_PARTS: Final = {
    "whole": (0.0, 100.0),
    "middle": (1.0, 99.0),
    "dark": (0.0, 30.0),
    "bright": (70.0, 100.0),
}
"""Views by percentiles of the frame: text that one hides, another shows."""
DISPLAY: Final = "display"
"""The window the file itself asks for."""
VIEWS: Final = (DISPLAY, *_PARTS)


class Drawer:
    """Draws frames; the file it drew last is kept decoded, because the next question is mostly about it."""

    def __init__(self) -> None:
        self._key = ""
        self._ds = Dataset()
        self._frames: npt.NDArray[np.integer[Any]] = np.zeros((0, 0, 0), dtype=np.uint8)

    def answer(self, task: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What is said of a file, and its picture: [height * width] bytes of grey; none after a refusal.

        Args:
            task: `key` (of the content), `path`, `person` or null, `frame`, `view`, `side` (longest, in pixels).
        """
        try:
            with quiet():
                return self._draw(task)
        except FileRefused as refusal:
            return {"code": refusal.code, "rule": refusal.rule}, b""
        except (RecursionError, MemoryError):
            return {"code": too_much().code, "rule": too_much().rule}, b""
        except Exception:  # noqa: BLE001 (an untrusted file can make a parser raise anything)
            return {"code": damaged().code, "rule": damaged().rule}, b""

    def _draw(self, task: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        if task["key"] != self._key:
            self._load(task)
        count, rows, cols = self._frames.shape
        number = min(max(int(task["frame"]), 0), count - 1)
        shown = view(self._ds, self._frames[number], str(task["view"]))
        small = _scaled(shown, int(task["side"]))
        said = {"code": "", "rows": rows, "cols": cols, "frames": count, "frame": number}
        return {**said, "height": small.shape[0], "width": small.shape[1]}, small.tobytes()

    def _load(self, task: Mapping[str, Any]) -> None:
        path = Path(task["path"])
        if path.stat().st_size > MAX_FILE_BYTES:
            raise too_much()
        data = path.read_bytes()
        self._ds = read(data) if task["person"] is None else wrap(data, Person(**task["person"]))
        pixels = decode(self._ds, colour=True)
        self._frames = pixels if pixels.ndim == 3 else pixels[None]
        self._key = str(task["key"])


def view(ds: Dataset, frame: npt.NDArray[np.integer[Any]], name: str) -> npt.NDArray[np.uint8]:
    """One frame as levels of grey.

    Args:
        ds: the image it comes from.
        frame: [rows, columns], stored values.
        name: of `VIEWS`; one that does not fit the file becomes `middle`.
    """
    if name == DISPLAY and not is_colour(ds):
        shown = _display(ds, frame)
        if shown is not None:
            return shown
    low, high = np.percentile(frame, _PARTS.get(name, _PARTS["middle"]))
    grey = _spread(frame.astype(np.float64), float(low), float(high))
    return 255 - grey if not is_colour(ds) and is_inverted(ds) else grey


def _display(ds: Dataset, frame: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.uint8] | None:
    if not (ds.get("WindowCenter") or ds.get("VOILUTSequence")):
        return None
    try:
        shown = presentation(ds, to_units(ds, frame))
    except (FileRefused, ValueError, TypeError, IndexError):
        return None
    return _spread(shown, float(shown.min()), float(shown.max()))


def _spread(values: Grey, low: float, high: float) -> npt.NDArray[np.uint8]:
    return (np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0) * 255).astype(np.uint8)


def _scaled(grey: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    rows, cols = grey.shape
    share = min(1.0, side / max(rows, cols))
    size = (max(1, round(cols * share)), max(1, round(rows * share)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def serve(lines: BinaryIO, answers: BinaryIO, ready: Callable[[], None]) -> None:
    """Answer line after line until the pipe closes."""
    drawer = Drawer()
    ready()
    for line in lines:
        said, picture = drawer.answer(json.loads(line))
        answers.write(json.dumps({**said, "bytes": len(picture)}).encode("ascii") + b"\n" + picture)
        answers.flush()


def main() -> None:
    """Limit this process, then serve its parent."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    hello = json.loads(sys.stdin.buffer.readline())

    def ready() -> None:
        """From here on nothing grows without bound."""
        die_with_parent(int(hello["parent"]))
        limit_memory(int(hello["memory"]))

    serve(sys.stdin.buffer, answers, ready)


if __name__ == "__main__":
    main()
