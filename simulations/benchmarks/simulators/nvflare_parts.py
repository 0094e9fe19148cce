"""What NVFlare's simulator loads by name from its job: the server's workflow and a client's executor.

Imported in the peer's own environment only, by its processes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.executor import Executor
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg

from simulations.benchmarks.simulators.common_task import BATCH, RATE, SEED, Job, Watch, data, loss, network


class TimedFedAvg(FedAvg):
    """Its FedAvg without files of models, told when rounds begin and end; writes what was measured at the end."""

    def __init__(self, rounds: int, chosen: int, told: str) -> None:
        """As `common_task.Job`; `told` is the file for what was measured."""
        torch.manual_seed(SEED)
        model = {name: value.numpy() for name, value in network().state_dict().items()}
        super().__init__(
            num_clients=chosen, num_rounds=rounds, model=model, persistor_id="", task_check_period=0.002
        )
        self._told = told
        self._watch = Watch()

    def run(self) -> None:
        """All rounds."""
        self._watch.started()
        super().run()
        draft = Path(self._told).with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self._watch.found)), encoding="utf-8")
        draft.rename(self._told)

    def save_model(self, model: Any) -> None:
        """A round has ended; nobody else in the race writes models either."""
        del model
        self._watch.ended()


class Trainer(Executor):
    """One epoch at one hospital; a process that stands for several keeps everybody's data."""

    _data: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    def __init__(self, folder: str, sites: int) -> None:
        """As `common_task.Job`."""
        super().__init__()
        self._job = Job(Path(folder), sites, 0, 0, Path())

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        """Train from the weights that were sent."""
        del task_name, abort_signal
        torch.set_num_threads(1)
        if Trainer._data is None:
            Trainer._data = data(self._job)
        number = int(fl_ctx.get_identity_name().rpartition("-")[2]) - 1
        images, labels = (part[number] for part in Trainer._data)
        net, measure = network(), loss()
        sent = FLModelUtils.from_shareable(shareable)
        net.load_state_dict({name: torch.as_tensor(value) for name, value in sent.params.items()})
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
        for part in torch.split(torch.randperm(len(labels)), BATCH):
            optimizer.zero_grad()
            measure(net(images[part]), labels[part]).backward()
            optimizer.step()
        learned = {name: value.numpy() for name, value in net.state_dict().items()}
        meta = {"NUM_STEPS_CURRENT_ROUND": 1}
        return FLModelUtils.to_shareable(FLModel(params=learned, params_type=ParamsType.FULL, meta=meta))
