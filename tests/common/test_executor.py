"""Flower's executor under our watch: it notices a killed app, and Flower still works as we rely on."""

from __future__ import annotations

import inspect
import subprocess
import sys

from flwr.supercore.cli import flower_superexec as entry
from flwr.supercore.superexec.executor import subprocess_executor

from common.executor import KILLED, command

_LAUNCHES = """
import signal, subprocess, sys, time
from common.executor import look_back
signal.signal(signal.SIGCHLD, look_back)
app = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(float(sys.argv[2]))
print("still here", flush=True)
"""


def _executor(app: str, wait_s: float) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", _LAUNCHES, app, str(wait_s)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)


def test_an_app_that_is_killed_ends_its_executor():
    done = _executor("import os; os.kill(os.getpid(), 9)", 50)
    assert done.returncode == KILLED
    assert "still here" not in done.stdout


def test_an_app_that_ends_by_itself_well_or_badly_does_not():
    for app in ("pass", "raise SystemExit(3)"):
        done = _executor(app, 2)
        assert done.returncode == 0
        assert "still here" in done.stdout


def test_flower_starts_apps_as_children_of_its_executor_and_looks_back_at_none():
    """What we rely on in Flower's own source; another way of starting apps would go unnoticed."""
    source = inspect.getsource(subprocess_executor)
    assert "subprocess.Popen(args" in source
    assert "wait" not in source.replace("wait_for_capacity", "").replace("capacity wait", "")
    assert callable(entry)


def test_the_command_proves_itself_and_trusts_one_authority():
    said = command("127.0.0.1:1", "secret", "ca.crt")
    assert said[-4:] == ("--root-certificates", "ca.crt", "--superexec-auth-secret-file", "secret")
    assert "--insecure" in command("127.0.0.1:1")
