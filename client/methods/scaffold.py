"""SCAFFOLD, the site's half: each step is corrected by how this site's gradients differ from everybody's.

Karimireddy et al., "SCAFFOLD", ICML 2020, algorithm 1 with option II:

    y   <- y - rate * (g(y) - c_k + c)                     for `steps` steps
    c_k <- c_k - c + (x - y) / (steps * rate)

x is the global model, c the mean variate that the server sends, c_k this site's own, which never leaves. Under privacy
g is the noised gradient of clipped patients and the correction comes after the noise; c_k is made of noised steps
alone (Noble, Bellet, Dieuleveut, "Differentially Private Federated Learning on Heterogeneous Data", AISTATS 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from client.methods.contract import Begun, Given, Left, Tensors
from common.errors import FederationError

_OWN: Final = "variate."


@dataclass(frozen=True)
class Scaffold:
    """Variates in, variates out."""

    stride: float
    """Steps a round times the learning rate."""

    def begin(self, given: Given) -> Begun:
        """From the global model, every gradient pushed by `c - c_k`.

        Raises:
            FederationError: `method`: the server sent no variate.
        """
        if given.control.keys() != given.model.keys():
            raise FederationError(
                "instruction",
                "it holds no variate for every tensor of the model",
                "Compare the releases",
                code="method",
            )
        own = self._own(given)
        return Begun(given.model, {n: np.asarray(c - own[n], np.float32) for n, c in given.control.items()})

    def end(self, given: Given, change: Tensors) -> Left:
        """The change leaves; the variate that belongs to it stays."""
        own = self._own(given)
        kept = {
            _OWN + n: np.asarray(own[n] - given.control[n] - moved / self.stride, np.float32)
            for n, moved in change.items()
        }
        return Left(change, kept)

    def _own(self, given: Given) -> Tensors:
        return {n: given.kept.get(_OWN + n, np.zeros(a.shape, np.float32)) for n, a in given.model.items()}
