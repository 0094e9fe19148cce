"""Flower's executor under our watch: it notices a killed app, and Flower still works as we rely on."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import shutil
import subprocess
import sys

from flwr.supercore.cli import flower_superexec as entry
from flwr.supercore.superexec import run_superexec
from flwr.supercore.superexec.executor import subprocess_executor

from common import executor
from common.executor import KILLED, Pace, command

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


_FORKS = """
import os, signal, sys, time
from common import executor
from flwr.supercore.exit import add_exit_handler
executor.ready()
add_exit_handler(lambda: print("the executor's own end", flush=True))
signal.signal(signal.SIGCHLD, executor.look_back)
print("before", flush=True)
{what}
time.sleep({wait_s})
print("still here", flush=True)
"""


def _forks(what: str, wait_s: float) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", _FORKS.format(what=what, wait_s=wait_s)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def test_a_forked_courier_is_flower_s_program_and_ends_as_one():
    done = _forks("executor.Launching().Popen([executor.COURIER, '--help'])", 3)
    assert "Run a Flower ClientApp" in done.stdout
    assert done.stdout.count("before") == 1
    assert "still here" in done.stdout
    assert "the executor's own end" not in done.stdout
    assert done.returncode == 0


def test_a_forked_courier_that_is_killed_ends_its_executor():
    """Nobody listens there: it goes on asking until it is killed."""
    words = "[executor.COURIER, '--insecure', '--runtime-api-address', '127.0.0.1:1', '--token', 't']"
    kills = f"child = executor.forked({words}); time.sleep(1); os.kill(child, signal.SIGKILL)"
    done = _forks(kills, 60)
    assert done.returncode == KILLED, done.stderr
    assert "still here" not in done.stdout


def test_a_courier_s_end_is_not_its_executor_s():
    """A courier that ends at once, in Flower's own way of ending."""
    ends = "import importlib; from flwr.supercore.exit import flwr_exit"
    at_once = (
        "importlib.import_module('flwr.supernode.cli.flwr_clientapp').flwr_clientapp = lambda: flwr_exit(0)"
    )
    done = _forks(f"{ends}\n{at_once}\nexecutor.forked([executor.COURIER])", 3)
    assert "still here" in done.stdout, done.stderr
    assert "the executor's own end" not in done.stdout


def test_any_other_program_is_started_as_ever():
    done = _forks("executor.Launching().Popen([sys.executable, '-c', 'print(6 * 7)'])", 2)
    assert "42" in done.stdout
    with_streams = (
        "executor.Launching().Popen([executor.COURIER, '--help'], stdout=executor.Launching.DEVNULL)"
    )
    assert "Run a Flower" not in _forks(with_streams, 3).stdout


def test_what_is_imported_beforehand_is_none_of_ours_and_starts_no_thread():
    """A bundle's own code runs, not the one that lay here when the executor began."""
    text = (
        "import os, sys; from common import executor; executor.ready();"
        "print([n for n in sys.modules if n.partition('.')[0] in ('client', 'server', 'torch', 'safetensors')],"
        " len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[-2] == "[] 1"


def test_flower_s_launcher_calls_what_stands_for_subprocess_by_name():
    source = inspect.getsource(subprocess_executor)
    assert set(re.findall(r"subprocess\.(\w+)", source)) == {"Popen", "DEVNULL"}
    assert command("127.0.0.1:1", couriers=True)[3:5] == ("--forks", "flwr-clientapp")


def test_an_executor_looks_often_after_a_question_and_seldom_after_none_for_long():
    slept = []
    pace = Pace(slept.append)
    for _ in range(500):
        pace.sleep(1.0)
    assert slept[0] == 0.1
    assert slept == sorted(slept)
    assert slept[-1] == 1.0
    pace.begun()
    pace.sleep(1.0)
    assert slept[-1] == 0.1
    pace.sleep(0.05)
    assert slept[-1] == 0.05, "never longer than Flower would"


def test_flower_s_loop_waits_by_the_module_time_and_uses_nothing_else_of_it():
    source = inspect.getsource(run_superexec)
    assert set(re.findall(r"\btime\.(\w+)", source)) == {"sleep"}
    assert "time.sleep(task_poll_interval)" in source


def test_a_bundle_is_installed_once_and_anew_where_that_was_not_finished(tmp_path):
    """Flower takes a folder that is there for installed, also one that a killed process began."""
    content = b"a bundle"
    name = f"us.app.1-0-0.{hashlib.sha256(content).hexdigest()[:8]}"
    done = []

    def install(given, **named):
        done.append((given, named))
        (tmp_path / name).mkdir(exist_ok=False)
        (tmp_path / name / "app.py").write_text("whole")
        return tmp_path / name

    installed = executor.once(install, tmp_path)
    (tmp_path / name).mkdir()
    for _ in range(3):
        assert installed(content, skip_prompt=True) == tmp_path / name
    assert done == [(content, {"skip_prompt": True})]
    assert (tmp_path / name / "app.py").read_text() == "whole"
    shutil.rmtree(tmp_path / name)
    assert installed(content, skip_prompt=True).is_dir()
    assert len(done) == 2
    other = b"another bundle"
    name = f"us.app.1-0-0.{hashlib.sha256(other).hexdigest()[:8]}"
    assert installed(other) == tmp_path / name


def test_what_is_assumed_of_how_flower_installs_a_bundle():
    app = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    assert "install_from_fab(fab.content, skip_prompt=True)" in inspect.getsource(app.run_clientapp)
    utils = importlib.import_module("flwr.cli.install")
    assert executor._SHORT == utils.FAB_HASH_TRUNCATION
    text = inspect.getsource(utils.validate_and_install)
    assert "fab_hash[:FAB_HASH_TRUNCATION]" in text
    assert "else get_flwr_home()" in text
    assert "install_base_dir\n        / APP_DIR" in text
