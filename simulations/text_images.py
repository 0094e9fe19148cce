"""Real images of a folder, read as the client reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from client.deid.pixels import decode
from client.intake.outcome import Person
from client.intake.parse import quiet, read
from client.intake.wrap import wrap
from common.errors import FileRefused


def read_image(path: Path) -> tuple[str, npt.NDArray[np.integer[Any]]] | None:
    """Modality and stored values of a DICOM file or picture; None for anything else."""
    try:
        with quiet():
            data = path.read_bytes()
            picture = path.suffix.lower() in (".png", ".jpg", ".jpeg")
            ds = wrap(data, Person("0")) if picture else read(data)
            return str(ds.get("Modality") or "other"), decode(ds, colour=True)
    except (OSError, FileRefused):
        return None
