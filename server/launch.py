"""Run the app bundle as a local Flower simulation and say truly how it ended.

`flwr run --stream` returns 0 even when the run failed. Here a SuperLink of our own is started from a
neutral folder (its working directory comes first on the import path of its workers), with its own
ports and its own home, the run is submitted and followed, and then judged twice: by Flower's status
of the run and by the record our own server wrote. The SuperLink is stopped again in any case.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

from common.errors import ConsiliumError, FederationError, SubsetError
from server.journal import COMPLETED, read_federation

ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
}
"""No telemetry, no update check, nothing installed, one thread for each worker."""

_STARTED: Final = re.compile(r"started run (\d+)")
_CONNECTION: Final = "consilium"
_START_S: Final = 60.0
_END_S: Final = 60.0
_STOP_S: Final = 15.0
_POLL_S: Final = 0.2

Lines = Callable[[str], None]


def _unread(_line: str) -> None:
    """Output nobody reads."""


@dataclass(frozen=True)
class Launch:
    """What to run and where the result goes."""

    checkout: Path
    """Folder with pyproject.toml, common, client and server."""
    plan: Path
    federation: Path
    """Folder of a virtual federation: one site folder for each hospital."""
    out: Path
    lines: Lines = _unread
    """Called with each line Flower prints."""


def flwr_run(launch: Launch) -> int:
    """Run a plan through `flwr run`; gives 0 when it completed on enough sites.

    Returns:
        0, or the exit status of the error that ended the run (see `common.errors`).

    Raises:
        FederationError: code `launch` when Flower itself could not be started.
    """
    with tempfile.TemporaryDirectory(prefix="consilium-flwr-") as home, _superlink(Path(home)) as connected:
        run_id = _submit(launch, connected)
        status = _status(run_id, connected) if run_id else "not-started"
    return judge(launch.out, status)


def judge(out: Path, flower_status: str) -> int:
    """The exit status of a run: both Flower and our own record must say that it completed."""
    try:
        record = read_federation(out / "federation.json")
    except ConsiliumError:
        return FederationError.exit_status
    if record.status == COMPLETED and flower_status == f"finished:{COMPLETED}":
        return 0
    return (
        SubsetError.exit_status if record.status == SubsetError.default_code else FederationError.exit_status
    )


@contextmanager
def _superlink(home: Path) -> Iterator[dict[str, str]]:
    """A SuperLink for local simulations; gives the environment in which `flwr` talks to it."""
    port = _free_port()
    # Flower's programs start each other by name, so theirs must be found where we were installed.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, **ENVIRONMENT, "FLWR_HOME": str(home), "PATH": path}
    config = f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
    (home / "config.toml").write_text(f'{config}address = "127.0.0.1:{port}"\ninsecure = true\n')
    command = [
        _tool("flower-superlink"),
        "--insecure",
        "--simulation",
        "--isolation=subprocess",
        "--host=127.0.0.1",
        f"--port={port}",
    ]
    with (home / "superlink.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own installation's program, no shell
            command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(port, process)
        yield environment
    finally:
        _stop(process)


def _submit(launch: Launch, environment: dict[str, str]) -> str:
    """Submit and follow the run to its end; gives its id, empty when it was not accepted."""
    sites = len(list(launch.federation.glob("*/site.toml")))
    values = {"plan": launch.plan, "federation": launch.federation, "out": launch.out}
    config = " ".join(f'{key}="{path.resolve()}"' for key, path in values.items())
    command = [
        *(_tool("flwr"), "run", str(launch.checkout.resolve()), _CONNECTION, "--stream"),
        *("--run-config", f"{config} nodes={sites}"),
        *("--federation-config", f"num-supernodes={sites} client-resources-num-cpus=1"),
    ]
    run_id = ""
    with subprocess.Popen(  # noqa: S603 - as above
        command,
        cwd=environment["FLWR_HOME"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            launch.lines(line.rstrip("\n"))
            found = _STARTED.search(line)
            run_id = found.group(1) if found else run_id
    return run_id


def _status(run_id: str, environment: dict[str, str]) -> str:
    """Flower's own word on the run, once it is final."""
    command = [_tool("flwr"), "list", _CONNECTION, "--run-id", run_id, "--format", "json"]
    deadline = time.monotonic() + _END_S
    status = "unknown"
    while not status.startswith("finished") and time.monotonic() < deadline:
        done = subprocess.run(  # noqa: S603 - as above
            command,
            cwd=environment["FLWR_HOME"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_END_S,
        )
        status = _status_in(done.stdout)
    return status


def _status_in(output: str) -> str:
    try:
        runs = json.loads(output[output.index("{") :])["runs"]
        return str(runs[0]["status"])
    except (ValueError, KeyError, IndexError, TypeError):
        return "unknown"


def _tool(name: str) -> str:
    """A program of the installation that runs us."""
    return str(Path(sys.executable).with_name(name))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return
        except (URLError, OSError):
            time.sleep(_POLL_S)
    raise FederationError(
        "flower-superlink", "it did not start", "Check that the installation is whole", code="launch"
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the SuperLink and what it started; they are a session of their own."""
    for signal_, wait_s in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        try:
            os.killpg(process.pid, signal_)
            process.wait(wait_s)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
