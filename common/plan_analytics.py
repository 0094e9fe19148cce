"""`[analytics]` of a study plan: whether it is an analysis, and what is counted ([docs/analytics.md])."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from common.plan_fields import STRICT, Name

Maker = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .,&()/_+-]{0,63}$")]


@dataclass(frozen=True, config=STRICT)
class Analytics:
    """What an analysis counts, and who shows its own counts."""

    survey: bool = False
    """Whether the plan is an analysis; then nothing is trained or measured under it."""
    own: tuple[Name, ...] = ()
    """The sites that show cells under their own name; all others are summed under masks."""
    manufacturers: Annotated[tuple[Maker, ...], Field(max_length=20)] = ()
    """The makers that have a bin of their own."""
    epsilon: Annotated[float, Field(strict=True, ge=0, le=50)] = 0.0
    """Of the sum, for one patient; 0: exact sums."""
    delta: Annotated[float, Field(strict=True, gt=0, lt=0.01)] = 1e-5

    @model_validator(mode="after")
    def _bins_and_noise(self) -> Analytics:
        if len({name.casefold() for name in self.manufacturers}) < len(self.manufacturers):
            raise ValueError("a manufacturer is named twice")
        if len(set(self.own)) < len(self.own):
            raise ValueError("a site is named twice in own")
        if self.epsilon and self.own:
            raise ValueError("epsilon covers sums, and own cells are none: leave one of them out")
        return self
