"""The kinds of values a study plan is made of, each with its limits."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field

STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False)

Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Seed = Annotated[int, Field(ge=0, strict=True)]
"""NumPy's generators take no negative seed."""
Side = Annotated[int, Field(ge=1, le=4096, strict=True)]
"""Pixels or slices along one side. A detector has about 4,000; a plan that asks for more would only fill a
hospital's memory."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
