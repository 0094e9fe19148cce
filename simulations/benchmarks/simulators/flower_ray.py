"""The task by this project on Flower's own simulation runtime: a SuperLink, Ray's actors, the app bundle."""

from __future__ import annotations

import itertools
import os
import shutil
from datetime import datetime
from pathlib import Path


def main() -> None:
    """Carry it out."""
    from common.audit import read  # noqa: PLC0415 - importing is measured
    from common.plan import dump_plan  # noqa: PLC0415
    from server.launch import Launch, flwr_run  # noqa: PLC0415
    from simulations.benchmarks.planted import fresh, planted_plan  # noqa: PLC0415
    from simulations.benchmarks.simulators.common_task import BEGUN, Job, Watch  # noqa: PLC0415

    job, root = Job.told(), Path(__file__).resolve().parents[3]
    watch = Watch()
    for number in range(1, job.sites + 1):
        fresh(job.folder, job.out / "sites" / f"site-{number:04}")
    app = job.out / "app"
    for package in ("common", "client", "server"):
        shutil.copytree(root / package, app / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (root / name).is_file():
            shutil.copy(root / name, app)
    plan = job.out / "plan.toml"
    plan.write_text(dump_plan(planted_plan(job.rounds, job.chosen, job.sites)), encoding="utf-8")
    if flwr_run(Launch(app, plan, job.out / "sites", job.out / "out")) != 0:
        raise SystemExit("the run did not complete")
    ends = [
        datetime.fromisoformat(entry["time"])
        for entry in read(job.out / "out" / "audit.jsonl")
        if entry["event"] in ("survey.completed", "round.completed")
    ]
    watch.found.startup_s = ends[0].timestamp() - float(os.environ[BEGUN])
    watch.found.rounds_s = [(end - before).total_seconds() for before, end in itertools.pairwise(ends)]
    watch.tell()


if __name__ == "__main__":
    main()
