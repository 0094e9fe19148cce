"""The task by this project, from prepared stores: `python -m simulations.benchmarks.simulators.ours FOLDER ... WORKERS`.

With 0 workers in one process on one thread; with more on so many processes.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Carry it out."""
    workers = int(sys.argv.pop())
    from functools import partial  # noqa: PLC0415 - importing is measured

    from common.durability import relax  # noqa: PLC0415 - as above
    from simulations.benchmarks.planted import fresh, planted_plan  # noqa: PLC0415 - as above
    from simulations.benchmarks.simulators.common_task import Job, Watch  # noqa: PLC0415 - as above
    from simulations.grid import InProcessGrid, run_on  # noqa: PLC0415 - as above
    from simulations.workers import Hands, run_on_workers  # noqa: PLC0415 - as above

    relax()
    job, watch = Job.told(), Watch()
    answers = {"survey": 0, "round": 0}

    def progress(step: int, _site: str) -> None:
        if step == 0:
            answers["survey"] += 1
            if answers["survey"] == job.sites:
                watch.started()
        elif step <= job.rounds:
            answers["round"] += 1
            if answers["round"] == job.chosen:
                answers["round"] = 0
                watch.ended()

    folders = [job.out / f"site-{number:04}" for number in range(1, job.sites + 1)]
    plan = planted_plan(job.rounds, job.chosen, job.sites)
    if workers:
        hands = Hands(workers, partial(fresh, job.folder))
        run_on_workers(folders, plan, job.out / "out", hands, progress=progress)
    else:
        for folder in folders:
            fresh(job.folder, folder)
        run_on(InProcessGrid(folders, progress=progress), plan, job.out / "out")
    watch.tell()


if __name__ == "__main__":
    main()
