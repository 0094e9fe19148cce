"""The hospital's own model after the last round, whichever way it was made, and its scores of test patients.

First, do no harm: where the own model serves validation patients worse than the shared one, beyond chance, the shared one
stays (`client.finetune.harmed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from client.dataset import SiteData
from client.evaluation import Scores, predict
from client.finetune import finetune, harmed
from client.methods.calibration import calibrated
from client.methods.contract import Given
from client.methods.ditto import own_model
from client.methods.local_affine import LocalAffine
from common import checkpoints
from common.models import Network, get_arrays, set_arrays
from common.plan import Plan
from common.types import Arrays, RunId


@dataclass(frozen=True)
class Own:
    """What a hospital's own model is made of."""

    plan: Plan
    """With a `personalisation.method`."""
    kept: Arrays
    """What methods kept here of the run's last round."""
    saved: Arrays
    """The own model of this very run, where one was saved before: then what was kept is erased."""

    def scores(self, net: Network, data: SiteData) -> Scores:
        """Scores of the hospital's test patients under its own model, which `net` then holds in place of the global."""
        method = self.plan.personalisation.method
        if method == "calibrate":
            found = predict(net, data.test)
            return calibrated(found, predict(net, data.validation)) if data.validation.n_images else found
        if method == "finetune":
            finetune(net, data.train, data.validation, self.plan)
        elif self.saved and not self.kept:
            set_arrays(net, self.saved)
        else:
            _taken_over(net, self._made(net), data, self.plan)
        return predict(net, data.test)

    def _made(self, net: Network) -> Arrays:
        shared = get_arrays(net)
        if self.plan.personalisation.method == "ditto":
            return own_model(Given(shared, kept=self.kept))
        return LocalAffine.of(net).with_own(shared, self.kept)


def saved(path: Path, run: RunId) -> Arrays:
    """The tensors of a saved model, where it is of this run; none otherwise.

    Raises:
        StorageError: the file is not the one that was written.
    """
    if not path.exists():
        return {}
    found = checkpoints.load(path)
    return found.arrays if found.run == run else {}


def _taken_over(net: Network, own: Arrays, data: SiteData, plan: Plan) -> None:
    """Put the own model into the network, unless it does harm."""
    shared = get_arrays(net)
    if not data.validation.n_images:
        set_arrays(net, own)
        return
    before = predict(net, data.validation)
    set_arrays(net, own)
    if harmed(predict(net, data.validation), before, plan.evaluation.confidence):
        set_arrays(net, shared)
