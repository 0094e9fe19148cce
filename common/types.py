"""Identifiers and tensor shapes that both sides agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

SiteName = NewType("SiteName", str)
"""A hospital's short name in a federation: lower case, digits and hyphens."""

RunId = NewType("RunId", str)
"""One execution of a plan; unique within a federation."""

Pseudonym = NewType("Pseudonym", str)
"""A patient as the de-identified store knows them: keyed, never reversible without the key."""

Digest = NewType("Digest", str)
"""`sha256:` and 64 hexadecimal digits."""

FloatArray = npt.NDArray[np.floating[Any]]
"""Any real array; the shape is said where it is used."""

Arrays = Mapping[str, npt.NDArray[Any]]
"""A model's tensors by parameter name, in the order of the model's `named_parameters`."""
