"""Are MLflow and TensorBoard told what the record holds, once, and nothing else; and is nobody told by default?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import tomli_w
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from common.audit import AuditLog
from common.errors import FederationError, SettingsError
from common.messages import Estimate, GroupMetrics, ModelMetrics, SiteMetrics
from server.cli import app
from server.deployment import Start, programs
from server.federation_folder import Consortium
from server.journal import write_federation
from server.records import FederationRecord, RoundRecord, SiteRound
from server.tracking.board import Board
from server.tracking.figures import story
from server.tracking.follow import Follower, tell_all
from server.tracking.mlflow import Mlflow
from tests.enrolled import consortium as made_consortium
from tests.world.processes import Processes, free_ports, listening, until

DIGEST = "sha256:" + "0" * 64
NAME = "chest-1-0a1b2c3d"


def record(rounds: int, status: str = "running") -> FederationRecord:
    """Two sites; from the third round on one of them is missing. One figure is suppressed, one not finite."""
    both = {
        "alpha": SiteRound(100, 1.0, 0.6, 0.7, 1.25),
        "beta": SiteRound(50, None, None, None, float("nan")),
    }
    told = [
        RoundRecord(1, 12.5, 3_000_000, 2_000, both, {}),
        RoundRecord(2, 11.0, 3_000_000, 2_000, both, {}),
    ]
    told.append(RoundRecord(3, 9.0, 1_500_000, 1_000, {"alpha": both["alpha"]}, {"beta": "no-reply"}))
    whole = GroupMetrics("all", "all", 40, 60, auroc=Estimate(0.8123, 0.7, 0.9), ece=0.05)
    cells = (whole, GroupMetrics("age", "80+", None, None), GroupMetrics("age", "60-79", 20, 30, ece=0.125))
    sites = {
        "alpha": SiteMetrics("alpha", "run-1", 3, DIGEST, models=(ModelMetrics("federated", cells, 0.5),))
    }
    trained = ("alpha",) if rounds > 2 else ("alpha", "beta")
    return FederationRecord(
        "run-1", DIGEST, DIGEST, "fedavg", True, ("alpha", "beta"), ("alpha", "beta"), trained, rounds > 2, status,
        tuple(told[:rounds]), 0.5, sites if status == "completed" else {},
    )  # fmt: skip


def came(server: Consortium, rounds: int, status: str = "running") -> Path:
    """The study's folder as a run leaves it after so many rounds."""
    home = server.folder / "runs" / NAME
    home.mkdir(parents=True, exist_ok=True)
    (home / "study.json").write_text(json.dumps({"name": NAME, "state": "running", "number": 1}))
    log = home / "audit.jsonl"
    known = log.read_text().count("round.completed") if log.exists() else 0
    for number in range(known + 1, rounds + 1):
        AuditLog(log, None).append("round.completed", run="run-1", round=number)
    if status == "completed":
        AuditLog(log, None).append("run.ended", run="run-1")
    write_federation(record(rounds, status), home / "federation.json")
    return home


@pytest.fixture
def server(tmp_path):
    return made_consortium(tmp_path)


def configured(server: Consortium, **tracking: str) -> Consortium:
    path = server.folder / "server.toml"
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), "tracking": tracking}))
    return Consortium.open(server.folder)


def test_a_point_is_a_number_of_the_record_and_a_suppressed_cell_is_none(server):
    """Nothing is worked out: each value stands in the record, and what is None or not finite there is left out."""
    told = story(came(server, 3, "completed"))
    assert [(step.round, step.subset, step.final) for step in told.steps] == [
        (1, False, False), (2, False, False), (3, True, False), (3, True, True),
    ]  # fmt: skip
    values = told.steps[0].values
    assert values["site/alpha/auroc"] == 0.7
    assert values["round/bytes_up"] == 3_000_000
    assert {name for name in values if "beta" in name} == {"site/beta/weight"}
    final = told.steps[-1].values
    assert final == {
        "final/alpha/federated/all/auroc": 0.8123,
        "final/alpha/federated/all/ece": 0.05,
        "final/alpha/federated/age 60-79/ece": 0.125,
    }
    assert not any("80" in name for name in final)
    assert all(abs(step.at - time.time()) < 600 for step in told.steps)


def test_nobody_is_told_by_default(server):
    came(server, 1)
    assert [one.name for one in programs(Start(server)) if one.name == "tracker"] == []
    assert (
        "no tracker is configured"
        in CliRunner().invoke(app, ["track", "--folder", str(server.folder)]).output
    )
    assert not any("tfevents" in path.name for path in server.folder.rglob("*"))


class TestTensorBoard:
    """With TensorBoard's own reader."""

    def read(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        found = EventAccumulator(str(folder), {"tensors": 0}).Reload()
        return {
            tag: [(one.step, float(one.tensor_proto.float_val[0])) for one in found.Tensors(tag)]
            for tag in found.Tags()["tensors"]
        }

    def test_it_reads_each_round_once_and_a_subset_by_its_name(self, server, tmp_path):
        folder = tmp_path / "board"
        for rounds, status in (
            (1, "running"),
            (1, "running"),
            (2, "running"),
            (3, "running"),
            (3, "completed"),
        ):
            came(server, rounds, status)
            assert tell_all(server.folder, Board(folder)) == 1
        whole = self.read(folder / NAME)
        assert whole["site/alpha/loss"] == [(1, pytest.approx(0.6)), (2, pytest.approx(0.6))]
        assert not any("final" in tag for tag in whole)
        subset = self.read(folder / f"{NAME}-subset")
        assert subset["round/refused"] == [(3, 1.0)]
        assert subset["final/alpha/federated/all/auroc"] == [(3, pytest.approx(0.8123))]

    def test_a_file_is_whole_or_not_there_and_names_no_machine(self, server, tmp_path):
        folder = tmp_path / "board"
        (folder / NAME).mkdir(parents=True)
        (folder / ".consilium-left").mkdir()
        came(server, 1)
        tell_all(server.folder, Board(folder))
        assert [path.name for path in (folder / NAME).iterdir()] == ["events.out.tfevents.00000001.consilium"]

    def test_a_library_that_is_missing_is_named_before_anything_starts(self, server):
        """As on a server that was installed without the extra: `start` ends, with what to do."""
        configured(server, tensorboard="board")
        hidden = "import sys; sys.modules['tensorboard'] = None; from server.cli import main; main()"
        for words in (["start"], ["track"]):
            command = [sys.executable, "-c", hidden, *words, "--folder", str(server.folder)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            assert ended.returncode == SettingsError.exit_status
            assert 'pip install "consilium[tracking]"' in ended.stderr
        assert not (server.run / "processes").exists()


PEER = """
import sys, warnings
warnings.simplefilter("ignore")
from mlflow.server import app
app.run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
"""


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """MLflow's own server with its own database; its address."""
    folder = tmp_path_factory.mktemp("mlflow")
    (port,) = free_ports(1)
    with Processes(folder) as processes:
        processes.start(
            "mlflow",
            [sys.executable, "-c", PEER, str(port)],
            _MLFLOW_SERVER_FILE_STORE=f"sqlite:///{folder}/mlflow.db",
            _MLFLOW_SERVER_ARTIFACT_ROOT=str(folder / "artifacts"),
            MLFLOW_DISABLE_TELEMETRY="true",
        )
        until("MLflow listens", lambda: listening("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}"


def asked(address: str, path: str, **values):
    answer = httpx.post(f"{address}/api/2.0/mlflow/{path}", json=values, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def runs(address: str, experiment: str):
    query = {"experiment_name": experiment}
    found = httpx.get(f"{address}/api/2.0/mlflow/experiments/get-by-name", params=query, timeout=60).json()
    number = found["experiment"]["experiment_id"]
    return asked(address, "runs/search", experiment_ids=[number], max_results=9)["runs"]


def history(address: str, run: str, key: str) -> list[tuple[int, float]]:
    query = {"run_id": run, "metric_key": key}
    answer = httpx.get(f"{address}/api/2.0/mlflow/metrics/get-history", params=query, timeout=60).json()
    return [(int(one.get("step", 0)), one["value"]) for one in answer.get("metrics", [])]


class TestMlflow:
    """With MLflow's own server and database."""

    def test_it_is_told_each_round_once_by_whoever_comes_back(self, server, mlflow):
        for rounds, status in ((1, "running"), (1, "running"), (3, "running"), (3, "completed")):
            came(server, rounds, status)
            # Anew each time: a tracker that was started again remembers nothing itself.
            tell_all(server.folder, Mlflow(mlflow, "lungs"))
        (run,) = runs(mlflow, "lungs")
        assert run["info"]["run_name"] == f"{NAME} (subset)"
        assert run["info"]["status"] == "FINISHED"
        tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
        assert (tags["consilium.run"], tags["consilium.subset"]) == ("run-1", "true")
        assert tags["consilium.state"] == "completed, subset"
        params = {one["key"]: one["value"] for one in run["data"]["params"]}
        assert (params["plan"], params["expected"]) == (DIGEST, "alpha beta")
        number = run["info"]["run_id"]
        assert history(mlflow, number, "site/alpha/loss") == [(1, 0.6), (2, 0.6), (3, 0.6)]
        assert history(mlflow, number, "final/alpha/federated/all/auroc") == [(3, 0.8123)]
        assert history(mlflow, number, "final/alpha/federated/age 80_/auroc") == []

    def test_a_round_that_was_told_and_not_noted_is_kept_once(self, server, mlflow):
        """A tracker killed between the figures and the note tells them again."""
        came(server, 2)
        tell_all(server.folder, Mlflow(mlflow, "killed"))
        (run,) = runs(mlflow, "killed")
        number = run["info"]["run_id"]
        asked(mlflow, "runs/log-batch", run_id=number, tags=[{"key": "consilium.told", "value": "1"}])
        tell_all(server.folder, Mlflow(mlflow, "killed"))
        assert history(mlflow, number, "site/alpha/loss") == [(1, 0.6), (2, 0.6)]

    def test_the_process_of_start_tells_while_the_run_goes_on(self, server, mlflow, tmp_path):
        server = configured(server, mlflow=mlflow, tensorboard="board", experiment="followed")
        (program,) = [one for one in programs(Start(server)) if one.name == "tracker"]
        with Processes(tmp_path / "logs") as processes:
            processes.start("tracker", list(program.command))
            for rounds in (1, 2):
                came(server, rounds)
                name = f"events.out.tfevents.{rounds:08d}.consilium"
                until("TensorBoard has it", (server.folder / "board" / NAME / name).exists)
                until("MLflow has it", lambda n=rounds: told_of("followed", mlflow) == str(n))


def told_of(experiment: str, address: str) -> str:
    try:
        found = runs(address, experiment)
    except (KeyError, httpx.HTTPError):
        return ""
    return {tag["key"]: tag["value"] for run in found for tag in run["data"]["tags"]}.get(
        "consilium.told", ""
    )


class Answers(BaseHTTPRequestHandler):
    """Somebody at MLflow's place who answers as told and notes who asked for what."""

    status = 500
    seen: list[tuple[str, str]] = []  # noqa: RUF012 - one list for the whole test

    def do_GET(self):
        self.seen.append((self.path.partition("?")[0], self.headers.get("Authorization", "")))
        self.send_response(self.status)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"<no>")

    def log_message(self, *_):
        pass


@pytest.fixture
def answers():
    Answers.seen = []
    peer = HTTPServer(("127.0.0.1", 0), Answers)
    thread = Thread(target=peer.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{peer.server_port}"
    peer.shutdown()
    thread.join()
    peer.server_close()


@pytest.mark.parametrize(("status", "words"), [(500, "status 500"), (200, "not JSON"), (302, "status 302")])
def test_a_server_that_is_no_mlflow_is_named_and_never_followed_elsewhere(server, answers, status, words):
    Answers.status = status
    came(server, 1)
    with pytest.raises(FederationError, match=words) as error:
        tell_all(server.folder, Mlflow(answers, "lungs"))
    assert error.value.code == "mlflow"
    assert [path for path, _ in Answers.seen] == ["/api/2.0/mlflow/experiments/get-by-name"]


def test_the_secret_comes_from_a_file_of_its_owner_and_goes_to_the_server_alone(server, answers, tmp_path):
    Answers.status = 500
    secret = tmp_path / "mlflow.secret"
    secret.write_text("Bearer of-our-own\n")
    secret.chmod(0o644)
    with pytest.raises(SettingsError) as error:
        Mlflow(answers, "lungs", secret)
    assert error.value.code == "key-rights"
    secret.chmod(0o600)
    came(server, 1)
    with pytest.raises(FederationError) as refused:
        tell_all(server.folder, Mlflow(answers, "lungs", secret))
    assert Answers.seen[0][1] == "Bearer of-our-own"
    assert "of-our-own" not in str(refused.value)


def test_a_tracker_that_is_away_is_asked_again_and_stops_nothing(server, tmp_path):
    """The study goes on; what was missed is told once the tracker is back."""
    (port,) = free_ports(1)
    now = [0.0]
    follower = Follower(server.folder, "mlflow", Mlflow(f"http://127.0.0.1:{port}", "lungs"), lambda: now[0])
    came(server, 1)
    follower.tick()
    board = Follower(server.folder, "tensorboard", Board(tmp_path / "board"), lambda: now[0])
    board.tick()
    assert (tmp_path / "board" / NAME).is_dir()
    peer = HTTPServer(("127.0.0.1", port), Answers)
    Answers.seen = []
    thread = Thread(target=peer.serve_forever)
    thread.start()
    try:
        follower.tick()
        assert Answers.seen == [], "not before its pause is over"
        now[0] = 60.0
        follower.tick()
        assert len(Answers.seen) == 1
    finally:
        peer.shutdown()
        thread.join()
        peer.server_close()


def test_a_damaged_record_keeps_no_other_study_from_being_told(server, tmp_path):
    damaged = server.folder / "runs" / "chest-0-ffffffff"
    damaged.mkdir(parents=True)
    (damaged / "study.json").write_text(json.dumps({"name": damaged.name, "state": "running", "number": 0}))
    (damaged / "federation.json").write_text("{")
    came(server, 1)
    Follower(server.folder, "tensorboard", Board(tmp_path / "board")).tick()
    assert [path.name for path in (tmp_path / "board").iterdir()] == [NAME]


@pytest.mark.parametrize(
    "uri",
    [
        "http://mlflow.example",
        "ftp://x",
        "databricks",
        "https://user:word@mlflow.example",
        "http://127.0.0.1.evil",
    ],
)
def test_an_address_that_would_carry_figures_in_the_clear_is_refused(server, uri):
    with pytest.raises(SettingsError, match=re.escape("tracking.mlflow")):
        configured(server, mlflow=uri)


def test_nothing_but_the_configured_server_is_asked(server, answers, tmp_path):
    """The kernel's own word on it: the only connections of the process go to that one address."""
    strace = shutil.which("strace")
    assert strace, "strace is not installed"
    Answers.status = 500
    server = configured(server, mlflow=answers, tensorboard="board")
    came(server, 1)
    trace = tmp_path / "trace"
    command = [
        strace,
        "-f",
        "-e",
        "trace=connect,sendto",
        "-o",
        str(trace),
        sys.executable,
        "-m",
        "server.cli",
    ]
    ended = subprocess.run(
        [*command, "track", "--folder", str(server.folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert "status 500" in ended.stderr
    reached = re.findall(
        r"connect\(\d+, \{sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?\"([^\"]+)\"", trace.read_text()
    )
    host, port = answers.removeprefix("http://").split(":")
    assert set(reached) == {(port, host)}
