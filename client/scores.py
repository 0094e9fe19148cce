"""A hospital's own scores of its own patients, on its own disk; they never leave.

One file for each model, `<data>/scores/<name>.npz`: `alone`, `federated`, `personalised`, the last
two with `-dp` when the plan was private. Models trained apart can so be compared on the same patients.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from client.evaluation import Scores
from client.site import Site
from common.checkpoints import write_whole
from common.errors import StorageError

ALONE: Final = "alone"
_ATTRIBUTE: Final = "attribute."


def path_of(site: Site, name: str) -> Path:
    """Where the scores of a model lie."""
    return site.scores / f"{name}.npz"


def save(site: Site, name: str, scores: Scores) -> None:
    """Write the scores of one model, replacing older ones whole.

    Raises:
        StorageError: when the disk is full or the folder cannot be written.
    """
    buffer = io.BytesIO()
    columns: dict[str, Any] = {
        "scores": scores.scores,
        "labels": scores.labels,
        "patient_of": scores.patient_of,
        "pseudonyms": np.array(scores.pseudonyms, dtype=np.str_),
    }
    columns |= {_ATTRIBUTE + key: value for key, value in scores.attributes.items()}
    np.savez_compressed(buffer, **columns)
    write_whole(path_of(site, name), buffer.getvalue())


def load(site: Site, name: str) -> Scores | None:
    """The scores of one model, or None when it never scored here.

    Raises:
        StorageError: when the file is not whole.
    """
    path = path_of(site, name)
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return Scores(
                scores=file["scores"],
                labels=file["labels"],
                patient_of=file["patient_of"],
                attributes={
                    key.removeprefix(_ATTRIBUTE): file[key]
                    for key in file.files
                    if key.startswith(_ATTRIBUTE)
                },
                pseudonyms=[str(name) for name in file["pseudonyms"]],
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise StorageError(
            path.name, "it holds no scores", "Delete it; the next evaluation writes it anew"
        ) from None


def same_patients(one: Scores, other: Scores) -> bool:
    """Whether two models scored the same images of the same patients, so that they can be paired."""
    return (
        one.pseudonyms == other.pseudonyms
        and np.array_equal(one.patient_of, other.patient_of)
        and np.array_equal(one.labels, other.labels)
    )
