"""Flower's executor, with two things more: it ends when an app that it started was killed, and couriers start at once.

Flower's own does not look back at the apps it started: one that was killed (by the kernel for its memory, say)
leaves its node busy for a minute and a run for dead. Here the executor ends with `KILLED`, and its supervisor
starts it anew at once, on a hospital's side together with the SuperNode, so that the question can be asked again.

Flower starts an interpreter for every question, which imports for a second and a half before it does anything. An
executor that `--forks flwr-clientapp` has imported Flower and what a courier needs, and nothing of ours, and forks for each
question: what a process is, whom it belongs to and how it ends stay as they are, and the bundle's code is imported anew.
It looks for work ten times a second after a question, and less often the longer there was none.
A forked courier has in its memory what its executor proves itself with; it could read that before, from the file that is
its own account's.

    python -m common.executor --forks flwr-clientapp --insecure --runtime-api-address 127.0.0.1:9094
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from common.again import sooner

KILLED: Final = os.EX_TEMPFAIL
"""Exit status when an app was ended by a signal."""
MODULE: Final = "common.executor"
COURIER: Final = "flwr-clientapp"
_FORKS: Final = "--forks"
_MAIN: Final = ("flwr.supernode.cli.flwr_clientapp", "flwr_clientapp")
"""What the program `flwr-clientapp` calls."""
_LAUNCHER: Final = "flwr.supercore.superexec.executor.subprocess_executor"
BEFOREHAND: Final = (
    _MAIN[0],
    "numpy",
    "grpc",
    "grpc_health.v1.health",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
)
"""What a courier imports besides the bundle; no channel is opened and no thread started by it."""
_APP: Final = "flwr.supernode.runtime.run_clientapp"
_INSTALL: Final = "install_from_fab"
_OURS: Final = ("common", "client", "server")
_LOOP: Final = "flwr.supercore.superexec.run_superexec"
"""Where the executor waits between two looks; of the module `time` it uses `sleep` and nothing else."""
_SHORTEST_S: Final = 0.1
_SHARE: Final = 0.02
"""A pause is this share of the time since the last question: to wait costs at most two percent."""
_SHORT: Final = 8
"""Characters of a bundle's digest that end the name of its folder."""
_SIGNALS: Final = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


def command(
    runtime_api_address: str, secret_file: str = "", authority: str = "", *, couriers: bool = False
) -> tuple[str, ...]:
    """The command line of an executor for the SuperLink or SuperNode at this address.

    Args:
        runtime_api_address: host and port on this machine.
        secret_file: path of what proves that the executor is ours; empty: the other side does not ask.
        authority: path of the certificate that vouches for the other side's; empty: no TLS on this machine.
        couriers: whether it starts couriers, and therefore forks.
    """
    proof = ("--superexec-auth-secret-file", secret_file) if secret_file else ()
    trust = ("--root-certificates", authority) if authority else ("--insecure",)
    forks = (_FORKS, COURIER) if couriers else ()
    return (
        *(sys.executable, "-m", MODULE, *forks),
        *("--runtime-api-address", runtime_api_address, *trust, *proof),
    )


def look_back(_signal: int, _frame: object) -> None:
    """A child ended: forget it when it ended by itself, and end with it when it was killed."""
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        if os.WIFSIGNALED(status):
            # Nothing is left to put in order: what counts is on disk, and the supervisor ends our other children.
            os._exit(KILLED)


class Pace:
    """Stands for the module `time` in the executor's loop, with pauses that grow with the time since the last question."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._idle_s = 0.0

    def begun(self) -> None:
        """There was a question."""
        self._idle_s = 0.0

    def sleep(self, seconds: float) -> None:
        """Sleep at most as long as Flower would."""
        pause = min(max(_SHARE * self._idle_s, _SHORTEST_S), seconds)
        self._idle_s += pause
        self._sleep(pause)


class Launching:
    """Stands for the module `subprocess` where Flower starts an app: a courier is forked, anything else started.

    Args:
        begun: called at each start.
    """

    DEVNULL: Final = subprocess.DEVNULL

    def __init__(self, begun: Callable[[], None] = lambda: None) -> None:
        self._begun = begun

    def Popen(self, words: Sequence[str], **streams: Any) -> None:  # noqa: N802 - Flower calls it by this name
        """Start an app; nothing of the process is given back, and Flower asks for nothing."""
        self._begun()
        # A fork carries one thread over: with others about, what they held would stay held for ever.
        if words[0] == COURIER and not streams and threading.active_count() == 1:
            forked(words)
        else:
            subprocess.Popen(words, **streams)  # noqa: S603 - Flower's own command


def forked(words: Sequence[str]) -> int:
    """Fork a process that is the program `flwr-clientapp` with these words; gives its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        status = _courier(words)
    except BaseException:  # noqa: BLE001 - nothing may go on in the child but its end
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        # Not `sys.exit`: what the executor has to do at its own end is not the child's to do.
        os._exit(status)


def _courier(words: Sequence[str]) -> int:
    """In the child: forget the executor, then do what a fresh process would; gives the exit status."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    importlib.import_module("flwr.supercore.exit.exit_handler").registered_exit_handlers.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]
    importlib.import_module("random").seed()
    sys.argv = list(words)
    sys.path[:] = [place for place in sys.path if place not in ("", str(Path.cwd()))]
    try:
        getattr(importlib.import_module(_MAIN[0]), _MAIN[1])()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def once(install: Callable[..., Path], apps: Path) -> Callable[..., Path]:
    """Flower's installation of a bundle, which is done once for each bundle instead of for each question.

    Flower unpacks a bundle of some hundred files, hashes them, and then throws them away where it finds them installed
    already, or begun to be. Here a note beside an installation says that it was finished; one without it is made anew.

    Args:
        install: Flower's function, which takes a bundle's bytes and gives its folder.
        apps: the folder of all installations.
    """

    def installed(content: bytes, *parts: Any, **named: Any) -> Path:
        digest = hashlib.sha256(content).hexdigest()
        note = apps / f".{digest}"
        with suppress(OSError):
            place = apps / note.read_text(encoding="utf-8")
            if place.is_dir():
                return place
        for begun in apps.glob(f"*.{digest[:_SHORT]}"):
            shutil.rmtree(begun, ignore_errors=True)
        place = install(content, *parts, **named)
        with suppress(OSError):  # then it is installed again with the next question
            note.write_text(place.name, encoding="utf-8")
        return place

    return installed


def keep_to_ourselves() -> None:
    """Have no Flower in this process, or forked from it, call home; it reads the word when it is imported.

    Who starts a process by hand may not have set it, and Flower's own word is yes.
    """
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def ready() -> None:
    """Import what couriers need, and have Flower's executor look for work often and fork them."""
    for name in BEFOREHAND:
        importlib.import_module(name)
    launcher: Any = importlib.import_module(_LAUNCHER)
    loop: Any = importlib.import_module(_LOOP)
    loop.time = pace = Pace()
    app: Any = importlib.import_module(_APP)
    utils: Any = importlib.import_module("flwr.cli.install")
    apps = Path(utils.get_flwr_home()) / utils.APP_DIR
    setattr(app, _INSTALL, once(getattr(app, _INSTALL), apps))
    launcher.subprocess = Launching(pace.begun)


def main() -> NoReturn:
    """Run Flower's executor with the arguments of this process."""
    keep_to_ourselves()
    from flwr.supercore.cli.flower_superexec import flower_superexec  # noqa: PLC0415 - slow to import

    sooner()
    signal.signal(signal.SIGCHLD, look_back)
    if sys.argv[1:3] == [_FORKS, COURIER]:
        del sys.argv[1:3]
        ready()
    flower_superexec()
    sys.exit(0)


if __name__ == "__main__":
    main()
