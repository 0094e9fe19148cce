"""The task by pfl-research (Granqvist et al. 2024), in its own environment: its simulated backend in one process."""

from __future__ import annotations

from typing import Any

from simulations.benchmarks.simulators.common_task import BATCH, RATE, SEED, Job, Watch, data, loss, network


def main() -> None:
    """Carry it out."""
    import numpy as np  # noqa: PLC0415 - importing is measured
    import torch  # noqa: PLC0415
    from pfl.aggregate.simulate import SimulatedBackend  # noqa: PLC0415
    from pfl.algorithm.base import NNAlgorithmParams  # noqa: PLC0415
    from pfl.algorithm.federated_averaging import FederatedAveraging  # noqa: PLC0415
    from pfl.callback.base import TrainingProcessCallback  # noqa: PLC0415
    from pfl.data.federated_dataset import FederatedDataset  # noqa: PLC0415
    from pfl.data.pytorch import PyTorchTensorDataset  # noqa: PLC0415
    from pfl.data.sampling import get_user_sampler  # noqa: PLC0415
    from pfl.hyperparam import NNTrainHyperParams  # noqa: PLC0415
    from pfl.metrics import Metrics  # noqa: PLC0415
    from pfl.model.pytorch import PyTorchModel  # noqa: PLC0415

    torch.set_num_threads(1)
    np.random.seed(SEED)  # noqa: NPY002 - the peer draws from it
    torch.manual_seed(SEED)
    job, watch = Job.told(), Watch()
    images, labels = data(job)
    measure = loss()

    class Net(torch.nn.Module):
        """The network with what pfl asks of one."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = network()

        def forward(self, pixels: Any) -> Any:
            """Logits."""
            return self.layers(pixels)

        def loss(self, pixels: Any, truth: Any, **_: Any) -> Any:
            """Mean of a batch."""
            return measure(self(pixels), truth)

        def metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
            """None is asked for."""
            return {}

    class Told(TrainingProcessCallback):
        """Rounds as they begin and end."""

        def on_train_begin(self, *, model: Any) -> Metrics:
            """The first begins."""
            del model
            watch.started()
            return Metrics()

        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
            """One has ended."""
            watch.ended()
            return False, Metrics()

    def made(user: int) -> Any:
        return PyTorchTensorDataset(tensors=[images[user], labels[user]], user_id=str(user))

    net = Net()
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    sampler = get_user_sampler("random", list(range(job.sites)))
    backend = SimulatedBackend(FederatedDataset(made, sampler), None)
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=job.rounds,
            evaluation_frequency=job.rounds + 1,
            train_cohort_size=job.chosen,
            val_cohort_size=0,
        ),
        backend,
        model,
        NNTrainHyperParams(local_num_epochs=1, local_learning_rate=RATE, local_batch_size=BATCH),
        None,
        callbacks=[Told()],
    )
    watch.tell()


if __name__ == "__main__":
    main()
