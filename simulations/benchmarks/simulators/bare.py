"""The task as a bare PyTorch loop on one thread: what computing alone takes."""

from __future__ import annotations

from simulations.benchmarks.simulators.common_task import BATCH, RATE, SEED, Job, Watch, data, loss, network


def main() -> None:
    """Carry it out."""
    import numpy as np  # noqa: PLC0415 - importing is measured
    import torch  # noqa: PLC0415 - as above

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    job, watch = Job.told(), Watch()
    images, labels = data(job)
    net, measure, draw = network(), loss(), np.random.default_rng(SEED)
    model = {name: value.clone() for name, value in net.state_dict().items()}
    torch.optim.SGD(net.parameters(), lr=RATE)  # the first one imports torch's compiler
    watch.started()
    for _ in range(job.rounds):
        total = {name: torch.zeros_like(value) for name, value in model.items()}
        for site in draw.choice(job.sites, job.chosen, replace=False):
            net.load_state_dict(model)
            optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
            order = torch.randperm(len(labels[site]))
            for part in torch.split(order, BATCH):
                optimizer.zero_grad()
                measure(net(images[site][part]), labels[site][part]).backward()
                optimizer.step()
            for name, value in net.state_dict().items():
                total[name] += value
        model = {name: value / job.chosen for name, value in total.items()}
        watch.ended()
    watch.tell()


if __name__ == "__main__":
    main()
