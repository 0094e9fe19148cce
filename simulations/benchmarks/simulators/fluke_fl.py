"""The task by fluke (Polato 2024), in its own environment: its FedAvg, one client after another."""

from __future__ import annotations

from typing import Any

from simulations.benchmarks.simulators.common_task import BATCH, RATE, SEED, Job, Watch, data, network


def main() -> None:
    """Carry it out."""
    import torch  # noqa: PLC0415 - importing is measured
    from fluke import DDict, FlukeENV  # noqa: PLC0415
    from fluke.algorithms.fedavg import FedAVG  # noqa: PLC0415
    from fluke.data import DataSplitter, FastDataLoader  # noqa: PLC0415
    from fluke.utils import FederationObserver  # noqa: PLC0415

    torch.set_num_threads(1)
    job, watch = Job.told(), Watch()
    images, labels = data(job)
    FlukeENV().set_seed(SEED)
    FlukeENV().set_device("cpu")

    class Ready(DataSplitter):
        """Hospitals as they are."""

        def __init__(self) -> None:
            """Nothing is split."""

        def assign(self, n_clients: int, batch_size: int) -> Any:
            """Loaders of everybody, without tests."""
            loaders = [
                FastDataLoader(images[n], labels[n], num_labels=2, batch_size=batch_size, shuffle=True)
                for n in range(n_clients)
            ]
            return (loaders, [None] * n_clients), None

    class Told(FederationObserver):
        """Rounds as they begin and end."""

        def start_round(self, round: int, global_model: Any) -> None:  # noqa: A002 - the peer's word
            """One begins."""
            del global_model
            if round == 1:
                watch.started()

        def end_round(self, round: int) -> None:  # noqa: A002 - as above
            """One has ended."""
            del round
            watch.ended()

    client = {
        "batch_size": BATCH,
        "local_epochs": 1,
        "loss": torch.nn.BCEWithLogitsLoss,
        "optimizer": {"name": torch.optim.SGD, "lr": RATE},
        "scheduler": {"step_size": 1, "gamma": 1},
    }
    settings = DDict({"model": network(), "client": client, "server": {"weighted": True}})
    algorithm = FedAVG(job.sites, Ready(), settings)
    algorithm.attach(Told())
    algorithm.run(job.rounds, job.chosen / job.sites)
    watch.tell()


if __name__ == "__main__":
    main()
