"""Local affine: scale and shift of normalisation layers stay at home. FedBN's idea where there is no batch statistic.

Li, Jiang, Zhang, Kamp, Dou, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", ICLR 2021,
keeps statistics and affine parameters of batch normalisation local. Group normalisation has no statistics of patients
(which is why networks here have it, and may train under privacy); its scale and shift are what is left to be local.

A site never takes the shared layers over once it has its own. It sends how far its own are from the shared ones, so that
the shared model holds the sites' mean, for hospitals that do not train. In FedBN nothing of them is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from client.methods.contract import Begun, Given, Left, Tensors
from common.errors import PlanError, Problem
from common.models import Network
from common.models.network import NORMS
from common.types import Arrays

_OWN: Final = "affine."


@dataclass(frozen=True)
class LocalAffine:
    """The layers' tensors in, the layers' tensors out."""

    names: frozenset[str]
    """Of the tensors that stay."""

    @classmethod
    def of(cls, net: Network) -> LocalAffine:
        """The trainable scales and shifts of a network.

        Raises:
            PlanError: it has none.
        """
        learning = net.trainable()
        found = {
            f"{prefix}.{name}"
            for prefix, module in net.named_modules()
            if isinstance(module, NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }
        names = frozenset(found & learning.keys())
        if not names:
            rule = "local-affine keeps normalisation layers at home, and this network trains none"
            raise PlanError(
                "plan", [Problem("model.name", rule, "Use small-cnn, or train all of the network")]
            )
        return cls(names)

    def begin(self, given: Given) -> Begun:
        """From the global model with the site's own layers in it."""
        return Begun(self.with_own(given.model, given.kept))

    def end(self, given: Given, change: Tensors) -> Left:
        """The change, of the layers how far the own ones are from the shared; the own ones stay."""
        began = self.begin(given).weights
        own = {n: np.asarray(began[n] + change[n], np.float32) for n in self.names}
        delta = {
            n: np.asarray(own[n] - given.model[n], np.float32) if n in own else moved
            for n, moved in change.items()
        }
        return Left(delta, {_OWN + n: own[n] for n in sorted(own)})

    def with_own(self, model: Arrays, kept: Arrays) -> Arrays:
        """The model with the site's own layers, where it has them."""
        return {n: kept.get(_OWN + n, a) if n in self.names else a for n, a in model.items()}
