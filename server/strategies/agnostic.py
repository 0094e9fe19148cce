"""Agnostic averaging (group DRO over sites): weight moves, round by round, to the sites that are served worst.

Mohri, Sivek, Suresh, "Agnostic Federated Learning", ICML 2019, equation 4: minimise over models the largest mean over
mixtures of sites. The mixture climbs by exponentiated gradient as in Sagawa, Koh, Hashimoto, Liang, "Distributionally
Robust Neural Networks for Group Shifts", ICLR 2020, algorithm 1, from the sites' weights on:

    score_k <- score_k + step * F_k
    share_k  = weight_k * exp(score_k) / sum over those who came
    model   <- model + rate * sum_k(share_k * delta_k)

F_k is the loss of site k under the model that the round began with. At step 0 this is federated averaging. The scores
are the memory; of a site that did not come the score stays. A site that lies about its loss gains weight: see q-FFL.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from statistics import fmean
from typing import Final

import numpy as np

from common.types import Arrays
from server.strategies.contract import memory_of, model_of, together
from server.strategies.heard import ByLoss, Heard, moved

_SCORE: Final = "score."


@dataclass(frozen=True)
class Agnostic(ByLoss):
    """Averaging under a mixture that follows the losses."""

    step: float = 0.0

    def apply(self, model: Arrays, state: Heard, rate: float) -> Arrays:
        """One step under the mixture with this round's losses in it."""
        updates = state.closed()
        scores = {name.removeprefix(_SCORE): float(of[0]) for name, of in memory_of(model).items()}
        middle = fmean(scores.values()) if scores else 0.0  # where a site begins that came late
        for one in updates:
            scores[one.site] = scores.get(one.site, middle) + self.step * one.loss
        # Only differences count; without the largest taken off, a long run would overflow.
        top = max(scores.values())
        shares = [one.weight * exp(scores[one.site] - top) for one in updates]
        whole = sum(shares)
        new = moved(model_of(model), updates, [rate * share / whole for share in shares], state.folder)
        kept = {_SCORE + s: np.array([score - top], np.float32) for s, score in sorted(scores.items())}
        return together(new, kept)
