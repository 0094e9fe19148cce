"""Flower's own processes on loopback, started as a deployment starts them, and ended with the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client.deployment import ENVIRONMENT
from common import executor
from common.supervisor import Program, Supervisor
from server.launch import _free_port

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 180.0
"""The machine may be busy; nothing waits so long when all is well."""


def tool(name: str) -> str:
    """A program of this installation."""
    return str(Path(sys.executable).with_name(name))


class Flower:
    """A SuperLink with its executor, and whatever nodes are added before it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.secret = folder / "executor.secret"
        self.secret.write_text("ab" * 32)
        self.secret.chmod(0o600)
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        self.environment = {
            **ENVIRONMENT,
            "FLWR_HOME": str(folder / "home"),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
        }
        (folder / "home").mkdir()
        config = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{self.address}"\ninsecure = true\n'
        (folder / "home" / "config.toml").write_text(config)
        superlink = (
            *(tool("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self.secret)),
            "--disable-runtime-dependency-installation",
        )
        self.programs = [
            self._program("superlink", superlink),
            self._program("executor", executor.command(self.address, str(self.secret)), "superlink"),
        ]

    def add(self, name: str, command: Sequence[str], *needs: str, **more: object) -> None:
        """One more program; its environment is Flower's."""
        self.programs.append(self._program(name, tuple(command), *needs, **more))

    def _program(self, name: str, command: tuple[str, ...], *needs: str, **more: object) -> Program:
        where = {"folder": self.folder, "environment": self.environment}
        return Program(name=name, command=command, needs=needs, **{**where, **more})

    @contextmanager
    def running(self) -> Iterator[Supervisor]:
        """All programs, until the block ends."""
        ended = threading.Event()
        kept = Supervisor(self.programs, self.folder / "processes")
        thread = threading.Thread(target=kept.run, args=(lambda: not ended.is_set(),))
        thread.start()
        try:
            yield kept
        finally:
            ended.set()
            thread.join()

    def said(self, name: str) -> str:
        """A program's log."""
        return (self.folder / "processes" / f"{name}.log").read_text(errors="replace")

    def submit(self, app: Path, **values: object) -> str:
        """Hand an app in; gives the run's id once the SuperLink took it."""
        config = " ".join(f'{name}="{value}"' for name, value in values.items())
        command = [tool("flwr"), "run", str(app), "here", "--run-config", config]
        until = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > until:
                raise AssertionError(done.stdout + done.stderr)
            time.sleep(0.5)


def wait_for_record(path: Path) -> dict[str, object]:
    """A run's record, once it is no longer running."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            found = json.loads(path.read_text())
            if found["status"] != "running":
                return found
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"{path.name} did not come")
