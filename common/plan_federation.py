"""`[federation]` of a study plan: who takes part, for how long, and what the server does with what it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from common.plan_fields import STRICT, Count, Name, NotNegative, Positive

LEAST: Final[dict[str, Callable[[int], int]]] = {
    "trimmed-mean": lambda f: 2 * f + 1,
    "median": lambda f: 2 * f + 1,
    "multi-krum": lambda f: 2 * f + 3,
    "bulyan": lambda f: 4 * f + 3,
}
"""Updates that a rule needs to stand f wrong ones; sources in `server/strategies/robust.py`."""


LEAST_MASKED: Final = 3
"""Sites in a masked sum, at least: of two each would know the other's part."""


def least_updates(rule: str, tolerated: int) -> int:
    """How many updates `rule` needs to stand `tolerated` wrong ones; 1 for those that do not count them."""
    return LEAST[rule](tolerated) if rule in LEAST else 1


@dataclass(frozen=True, config=STRICT)
class Federation:
    """Who takes part, for how long, and what the server does with what it gets."""

    sites: tuple[Name, ...] = ()
    """The sites expected by name; empty: whoever is registered when the run starts."""
    least_sites: Count = 2
    sites_per_round: Annotated[int, Field(ge=0, strict=True)] = 0
    """How many of the sites train in a round, drawn anew for each; 0: all of them."""
    rounds: Count = 10
    strategy: Literal["fedavg", "fedprox", "fedadam", "fedyogi", "scaffold", "q-ffl", "agnostic"] = "fedavg"
    """The method (`common.methods`, docs/methods.md); its numbers stand in `[method]`."""
    proximal_mu: NotNegative = 0.0
    server_learning_rate: Positive = 1.0
    deadline_s: Positive = 600.0
    """Seconds a round waits for its sites."""
    longest_wait_s: NotNegative = 0.0
    """Seconds more that a round waits while fewer than `least_sites` answered; then the run ends."""
    quorum_sites: Annotated[int, Field(ge=0, strict=True)] = 0
    """With so many in, the others have `quorum_grace_s` more; 0: they have the whole deadline."""
    quorum_grace_s: NotNegative = 60.0
    max_update_norm: Positive = 1000.0
    """L2 norm above which an update is turned away."""
    update_bits: Literal[8, 16, 32] = 32
    """Bits of one value of an update on the wire; below 32 by stochastic rounding (`common.compression`)."""
    robust: Literal["norm-bound", "none", "trimmed-mean", "median", "multi-krum", "bulyan"] = "norm-bound"
    """What is done about sites that may be wrong, where the server sees every update."""
    tolerated: Count = 1
    """f: how many sites may be wrong at once; of the last four rules only."""
    aggregation: Literal["visible", "secure"] = "visible"
    """`visible`: the server sees every update, and may judge it. `secure`: it sees the sum alone."""
    mask_bits: Literal[16, 24, 32] = 24
    """Secure: bits of one value on the wire (`common.secagg.coding`)."""
    mask_range: Annotated[float, Field(strict=True, gt=0, le=1e6)] = 4.0
    """Secure: the largest magnitude of one value of an update; a site refuses to send a larger one."""

    @model_validator(mode="after")
    def _prox_has_mu(self) -> Federation:
        if (self.strategy == "fedprox") != (self.proximal_mu > 0):
            raise ValueError("proximal_mu > 0 goes with strategy = 'fedprox', and only with it")
        if self.sites and self.least_sites > len(self.sites):
            raise ValueError("least_sites is larger than the number of sites named")
        if 0 < self.quorum_sites < self.least_sites:
            raise ValueError("quorum_sites is smaller than least_sites: such a round could not complete")
        if self.sites and self.quorum_sites > len(self.sites):
            raise ValueError("quorum_sites is larger than the number of sites named")
        if len(set(self.sites)) != len(self.sites):
            raise ValueError("a site is named twice")
        return self

    @model_validator(mode="after")
    def _chosen_are_enough(self) -> Federation:
        chosen = self.sites_per_round
        if not chosen:
            return self
        if chosen < max(self.least_sites, self.quorum_sites):
            raise ValueError("sites_per_round is smaller than least_sites or quorum_sites")
        if self.sites and chosen > len(self.sites):
            raise ValueError("sites_per_round is larger than the number of sites named")
        if self.aggregation == "secure":
            raise ValueError(
                "sites_per_round leaves sites out, and aggregation = 'secure' hides each in the sum of over half of all"
            )
        return self

    @model_validator(mode="after")
    def _masks_hide_updates(self) -> Federation:
        if self.aggregation == "visible":
            return self
        if self.robust not in {"norm-bound", "none"}:
            raise ValueError(
                f"robust = '{self.robust}' must see every update, and aggregation = 'secure' shows the server none"
            )
        if self.update_bits != 32:
            raise ValueError("update_bits is of visible updates; with aggregation = 'secure' set mask_bits")
        if self.least_sites < LEAST_MASKED:
            raise ValueError(
                f"aggregation = 'secure' needs least_sites of {LEAST_MASKED} or more: "
                "of a sum of two each knows the other's part"
            )
        return self

    @model_validator(mode="after")
    def _rule_has_enough(self) -> Federation:
        least = least_updates(self.robust, self.tolerated)
        if self.least_sites < least:
            raise ValueError(
                f"robust = '{self.robust}' stands {self.tolerated} wrong sites among {least} or more; "
                f"least_sites is {self.least_sites}"
            )
        return self
