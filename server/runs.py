"""Studies that were submitted, one after the other, and each again until it has come to an end of its own.

<folder>/runs/<study>/plan.toml     what is to be done
<folder>/runs/<study>/study.json    where it stands: `queued`, `running`, `completed`, or the code of what ended it
<folder>/runs/<study>/…             what `server.journal` leaves there

Flower does not go on with a run whose ServerApp was killed. The ServerApp holds a lock on its folder for as long as
it lives (`Journal.owned`), so that its death is known at once; then the same study is submitted again, and
goes on where its folder says. Only a code of our own, written down by the run itself, ends it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from common.checkpoints import write_whole
from common.errors import ConsiliumError, FederationError, StorageError
from common.plan import Plan, dump_plan, load_plan
from server.federation_folder import Consortium
from server.journal import COMPLETED, RUNNING, is_owned, read_federation, read_live
from server.release import app_folder, make_bundle, require_released

QUEUED: Final = "queued"
STUDY: Final = "study.json"
CONNECTION: Final = "consilium"
_SHOW_UP_S: Final = 45.0
"""A run that was submitted and did not begin within this time is submitted again."""
_PAUSES_S: Final = (0.0, 2.0, 5.0, 15.0, 60.0)
"""Before a study is submitted again, by the number of times in a row that it got no further."""
_SUBMIT_S: Final = 60.0


@dataclass(frozen=True)
class Study:
    """One submitted study."""

    name: str
    state: str
    number: int
    """In the order of submission."""
    attempts: int = 0
    """How often it was handed to Flower."""


def submit(consortium: Consortium, plan: Plan) -> Study:
    """Queue a study that was released; else as `queue`.

    Raises:
        FederationError: code `not-released`; no hospital could have approved it.
    """
    require_released(consortium, plan)
    return queue(consortium.folder, plan)


def queue(folder: Path, plan: Plan) -> Study:
    """Queue a study; one of the same plan that ended early is queued again and goes on where it stopped.

    Simulated hospitals approve nothing, so nobody releases what they are asked; others are asked by `submit`.

    Args:
        folder: the consortium's.
        plan: of the study.

    Raises:
        FederationError: code `run-exists` when it is queued, under way or completed.
        StorageError: the folder cannot be written.
    """
    name = _name(plan)
    home = folder / "runs" / name
    before = _read(home)
    if before is not None and before.state in (QUEUED, RUNNING, COMPLETED):
        raise FederationError(
            f"study {name}",
            f"it is {before.state}",
            "Change the plan's version to run it once more",
            code="run-exists",
        )
    number = 1 + max((study.number for study in studies(folder)), default=0)
    write_whole(home / "plan.toml", dump_plan(plan).encode())
    return _write(home, Study(name, QUEUED, number))


def study_of(folder: Path, plan: Plan) -> Study | None:
    """The study of this very plan, however it stands; None where it was never submitted here."""
    return _read(folder / "runs" / _name(plan))


def studies(folder: Path) -> list[Study]:
    """Every study that was ever submitted here, in that order."""
    found = [_read(path.parent) for path in (folder / "runs").glob(f"*/{STUDY}")]
    return sorted((study for study in found if study is not None), key=lambda study: study.number)


def outcome(folder: Path, study: Study) -> str:
    """How a study stands, with the word `subset` where sites are missing in it, also while it is under way."""
    try:
        record = read_live(folder / "runs" / study.name)
    except ConsiliumError:
        return study.state
    missing = f", subset: {len(record.trained)} of {len(record.expected)} sites" if record.subset else ""
    return f"{study.state}{missing}"


class Runs:
    """Carries the queue out; `tick` is called often and never waits.

    Args:
        folder: the consortium's.
        environment: in which `flwr` finds the SuperLink under the name of `CONNECTION`.
        ready: whether the SuperLink takes a run; asked before each submission.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._ready = ready
        self._folder = folder
        self._environment = dict(environment)
        self._submitting: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._seen = False
        self._idle = 0
        self._rounds = -1
        self._due = 0.0

    def tick(self) -> None:
        """Begin the next study, notice that the present one ended or has to be submitted again."""
        study = self._present()
        if study is None:
            return
        if self._submitting is not None:
            self._look_at_submission()
            return
        home = self._folder / "runs" / study.name
        if study.state == QUEUED:
            self._begin(study)
        elif is_owned(home):
            self._seen = True
        elif (ended := self._ended(home)) is not None:
            _write(home, replace(study, state=ended))
            self._seen, self._idle, self._rounds, self._since, self._due = False, 0, -1, 0.0, 0.0
        elif self._seen or time.monotonic() - self._since > _SHOW_UP_S:
            self._again(study, home)

    def lost(self) -> None:
        """The executor ended, and whatever it ran with it: what was handed over before will not show up any more."""
        if self._submitting is None:
            self._seen = True

    def close(self) -> None:
        """Stop waiting for a submission."""
        if self._submitting is not None:
            self._submitting.kill()
            self._submitting.wait()

    def _present(self) -> Study | None:
        there = studies(self._folder)
        under_way = [study for study in there if study.state == RUNNING]
        queued = [study for study in there if study.state == QUEUED]
        return next(iter(under_way or queued), None)

    def _begin(self, study: Study) -> None:
        home = self._folder / "runs" / study.name
        with suppress(ConsiliumError):
            if read_federation(home / "federation.json").status != COMPLETED:
                (home / "federation.json").unlink()
        self._submit(study, home)

    def _again(self, study: Study, home: Path) -> None:
        rounds = _rounds(home)
        if self._due == 0.0:
            self._idle = 0 if rounds > self._rounds else self._idle + 1
            self._rounds = rounds
            self._due = time.monotonic() + _PAUSES_S[min(self._idle, len(_PAUSES_S) - 1)]
        if time.monotonic() >= self._due:
            self._submit(study, home)

    def _submit(self, study: Study, home: Path) -> None:
        if not self._ready():
            return
        app = _unpacked(home, load_plan(home / "plan.toml"))
        values = {"plan": home / "plan.toml", "out": home, "consortium": self._folder}
        config = " ".join(f'{key}="{path.resolve()}"' for key, path in values.items())
        log = (home / "submit.log").open("wb")
        with log:
            self._submitting = subprocess.Popen(  # noqa: S603 - our own installation's program, no shell
                (_tool("flwr"), "run", str(app), CONNECTION, "--run-config", config),
                cwd=home,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._seen, self._since, self._due = False, time.monotonic(), 0.0
        _write(home, replace(study, state=RUNNING, attempts=study.attempts + 1))

    def _look_at_submission(self) -> None:
        process = self._submitting
        if process is None:
            return
        if process.poll() is None:
            if time.monotonic() - self._since < _SUBMIT_S:
                return
            process.kill()
            process.wait()
        if process.returncode != 0:
            # Nobody took it, so nobody will show up: it is submitted again after a pause.
            self._seen = True
        self._submitting = None

    def _ended(self, home: Path) -> str | None:
        try:
            status = read_federation(home / "federation.json").status
        except ConsiliumError:
            return None
        return None if status == RUNNING else status


def _unpacked(home: Path, plan: Plan) -> Path:
    """The app bundle of the installed code and this plan, as the folder that Flower wants; the same every time."""
    app = home / "app"
    shutil.rmtree(app, ignore_errors=True)
    return app_folder(make_bundle(plan), app)


def _rounds(home: Path) -> int:
    lines = home / "audit.jsonl"
    try:
        return lines.read_bytes().count(b'"round.completed"')
    except OSError:
        return 0


def _name(plan: Plan) -> str:
    return f"{plan.study.name}-{plan.study.version}-{plan.digest[7:15]}"


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _read(home: Path) -> Study | None:
    try:
        return Study(**json.loads((home / STUDY).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise StorageError(f"{home.name}/{STUDY}", "it is damaged", "Restore it from backup") from None


def _write(home: Path, study: Study) -> Study:
    write_whole(home / STUDY, json.dumps(asdict(study), indent=1).encode())
    return study
