"""The task by NVFlare's simulator (Roth et al. 2022), in its own environment: its FedAvg, one process for each core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from simulations.benchmarks.simulators.common_task import Job, end_family

_LOOK_S = 0.5
_PARTS = "simulations.benchmarks.simulators.nvflare_parts"


def main() -> None:
    """Carry it out."""
    job = Job.told()
    found = job.out / "found.json"
    server = {"rounds": job.rounds, "chosen": job.chosen, "told": str(found)}
    client = {"folder": str(job.folder), "sites": job.sites}
    config = job.out / "job" / "app" / "config"
    _write(config / "config_fed_server.json", _workflow(server))
    _write(config / "config_fed_client.json", _executor(client))
    _write(
        job.out / "job" / "meta.json",
        {"name": "race", "resource_spec": {}, "min_clients": 1, "deploy_map": {"app": ["@ALL"]}},
    )
    work = job.out / "work"
    _write(work / "local" / "resources.json", {"format_version": 2, "class_allow_list": ["*"]})
    words = [sys.executable, "-m", "nvflare.private.fed.app.simulator.simulator", str(job.out / "job")]
    words += ["-w", str(work), "-n", str(job.sites), "-t", str(len(os.sched_getaffinity(0)))]
    log = job.out / "log.txt"
    with log.open("w", encoding="utf-8") as said:
        simulator = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)  # noqa: S603 - fixed words
        # To tell a hundred clients that all is done takes it longer than a round: it is ended.
        while not found.is_file() and simulator.poll() is None:
            time.sleep(_LOOK_S)
        end_family(os.getpid())
    if not found.is_file():
        lines = [line for line in log.read_text(encoding="utf-8").splitlines() if "rror" in line]
        raise SystemExit(lines[-1] if lines else f"it ended with {simulator.returncode}")
    sys.stdout.write("\n" + found.read_text(encoding="utf-8") + "\n")
    sys.stdout.flush()


def _workflow(args: dict[str, object]) -> dict[str, object]:
    workflow = {"id": "controller", "path": f"{_PARTS}.TimedFedAvg", "args": args}
    return {"format_version": 2, "workflows": [workflow], "components": []}


def _executor(args: dict[str, object]) -> dict[str, object]:
    executor = {"tasks": ["train"], "executor": {"path": f"{_PARTS}.Trainer", "args": args}}
    return {"format_version": 2, "executors": [executor], "components": []}


def _write(path: Path, values: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values), encoding="utf-8")


if __name__ == "__main__":
    main()
