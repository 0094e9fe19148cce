"""The page on which a consortium watches its federation, in a real browser, and what machines ask of it."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from typer.testing import CliRunner

from common.audit import AuditLog
from common.checkpoints import write_whole
from common.messages import Estimate, GroupMetrics, ModelMetrics, SiteHealth, SiteMetrics
from server.cli import app
from server.dashboard import listening
from server.deployment import Start, healthy, programs
from server.exposition import exposition
from server.federation_folder import Consortium
from server.journal import write_federation
from server.records import FederationRecord, RoundRecord, SiteRound
from server.sightings import Sighting
from server.watching import look
from tests.devtools import page as in_browser
from tests.enrolled import consortium as made_consortium
from tests.world.processes import Processes, free_ports, until

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def server(tmp_path):
    """A consortium with a member, one that was invited, and a study in its second round."""
    made = made_consortium(tmp_path)
    port, health = free_ports(2)
    with (made.folder / "server.toml").open("a") as settings:
        settings.write(f"\n[superlink]\nport = {port}\nhealth_port = {health}\n")
    made = Consortium.open(made.folder)
    now = datetime.now(UTC)
    for name in ("alpha", "beta"):
        made.book.invite(name, f"code {name}", now, now + timedelta(days=1))
    made.book.seen("alpha", now)
    heard = Sighting(now.timestamp(), -72.5, "run-1", 1, 1.25, SiteHealth("0.1.0", 200, 2))
    (made.folder / "seen").mkdir()
    (made.folder / "seen" / "alpha.json").write_text(json.dumps(asdict(heard)))
    home = made.folder / "runs" / "chest-1-0a1b2c3d"
    home.mkdir(parents=True)
    (home / "study.json").write_text(
        '{"name": "chest-1-0a1b2c3d", "state": "completed", "number": 1, "attempts": 1}'
    )
    write_federation(_record(), home / "federation.json")
    log = AuditLog(home / "audit.jsonl")
    log.append("run.started", run="run-1")
    log.append("round.completed", run="run-1", round=1)
    log.append("update.admitted", run="run-1", round=2, site="alpha")
    log.append("update.refused", run="run-1", site="beta", code="no-reply")
    return made


def _record():
    group = GroupMetrics("all", "all", 40, 60, auroc=Estimate(0.8123, 0.7, 0.9))
    metrics = SiteMetrics("alpha", "run-1", 1, DIGEST, models=(ModelMetrics("federated", (group,), 0.5),))
    one = RoundRecord(
        1, 12.5, 3_000_000, 2_000, {"alpha": SiteRound(100, 1.0, 0.6, 0.7, 1.25)}, {"gamma": HOSTILE}
    )
    return FederationRecord(
        "run-1", DIGEST, DIGEST, "fedavg", True, ("alpha", "beta"), ("alpha",), ("alpha",), True, "completed",
        (one,), 0.5, {"alpha": metrics}, {}, {"delta": "code-mismatch"},
    )  # fmt: skip


def test_what_is_seen_is_what_lies_in_the_folder(server):
    now = look(server)
    alpha, beta = now.sites
    assert (alpha.online, alpha.skew_s, alpha.version, alpha.disk_free_gb, alpha.gpus) == (
        True,
        -72.5,
        "0.1.0",
        200,
        2,
    )
    assert (alpha.epsilon, beta.online, beta.seen_s, beta.version) == (1.25, False, None, "")
    (run,) = now.runs
    assert run.state == "completed, subset: 1 of 2 sites"
    assert run.under_way == ("alpha",)
    assert run.refused == {"beta": "no-reply", "delta": "code-mismatch"}
    assert run.metrics == {"alpha": {"federated": 0.8123}}
    written = ["run.started", "round.completed", "update.admitted", "update.refused"]
    assert [event.event for event in now.events] == written[
        ::-1
    ]  # all four within one millisecond, or nearly


def test_a_hospital_that_was_silent_for_minutes_is_away(server):
    assert not look(server, datetime.now(UTC).timestamp() + 300).sites[0].online


def test_a_damaged_note_or_log_is_no_reason_to_see_nothing(server):
    (server.folder / "seen" / "alpha.json").write_text("{")
    with (server.folder / "runs" / "chest-1-0a1b2c3d" / "audit.jsonl").open("a") as file:
        file.write('{"n": 5, "ti')
    now = look(server)
    assert now.sites[0].version == ""
    assert now.runs[0].rounds[0].bytes_up == 3_000_000


def test_the_command_shows_it_as_a_table_and_as_json(server):
    said = CliRunner().invoke(app, ["status", "--folder", str(server.folder)], env={"COLUMNS": "250"}).output
    for word in ("alpha", "-72.5 s", "200 GB or more", "subset", "beta: no-reply", "1.25", "0.812"):
        assert word in said
    told = json.loads(CliRunner().invoke(app, ["status", "--folder", str(server.folder), "--json"]).output)
    assert told["runs"][0]["rounds"][0]["refused"] == {"gamma": HOSTILE}


SAMPLE = re.compile(
    r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_]\w*="([^"\\\n]|\\[\\"n])*",?)+\})? (-?\d+(\.\d+)?(e[-+]?\d+)?|[-+]?inf|nan)'
)


def test_prometheus_text_keeps_to_the_format(server):
    """Each family has HELP and TYPE before its samples, each sample once and in the grammar."""
    hostile = replace(look(server), processes={'a"b\\c\nd': "up"})
    lines = exposition(hostile).splitlines()
    family, seen = "", set()
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen
            seen.add(family)
        elif line.startswith("# TYPE "):
            assert line.split()[2:] in ([family, "gauge"], [family, "counter"])
        else:
            assert SAMPLE.fullmatch(line), line
            assert line.startswith(family)
    samples = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    assert 'consilium_process_up{process="a\\"b\\\\c\\nd"} 1.0' in lines
    assert exposition(hostile).endswith("\n")


def test_only_what_is_known_of_members_is_a_sample(server):
    assert "consilium_site_online{" not in exposition(look(server)), "nobody was admitted yet"
    now = look(server)
    member = replace(now.sites[0], state="member")
    text = exposition(replace(now, sites=(member,)))
    assert 'consilium_site_clock_skew_seconds{site="alpha"} -72.5' in text
    assert 'consilium_site_certificate_days{site="alpha"}' not in text


@pytest.fixture
def served(server):
    """The command as `start` runs it, and its port."""
    command = [sys.executable, "-m", "server.cli", "dashboard", "--folder", str(server.folder), "--serve"]
    process = subprocess.Popen(command)
    url = server.run / "dashboard.url"
    try:
        until("the page's address is there", url.exists)
        yield server, url.read_text().split("/")[2]
    finally:
        process.terminate()
        process.wait(20)


def _get(address, host=""):
    answer = httpx.get(address, headers={"Host": host} if host else {}, timeout=30)
    return answer.status_code, answer.text


def test_machines_get_health_readiness_and_metrics_and_strangers_nothing(served):
    server, place = served
    assert _get(f"http://{place}/healthz") == (200, "ok\n")
    code, text = _get(f"http://{place}/readyz")
    assert (code, "nothing is started" in text) == (503, True)
    status = server.run / "processes" / "status.json"
    _tell(status, superlink="running", edge="waiting")
    assert _get(f"http://{place}/readyz") == (503, "not ready: edge, superlink does not answer\n")
    _tell(status, superlink="running", edge="running", tracker="waiting")
    assert _get(f"http://{place}/readyz") == (503, "not ready: superlink does not answer\n")
    _tell(status, superlink="waiting", edge="running")
    assert _get(f"http://{place}/readyz") == (503, "not ready: superlink\n")
    assert 'consilium_process_up{process="edge"} 1.0' in _get(f"http://{place}/metrics")[1]
    for path in ("", "now", "x/now", "metrics/"):
        assert _get(f"http://{place}/{path}")[0] == 404
    assert _get(f"http://{place}/metrics", "evil.example")[0] == 421
    assert _get(f"http://{place}/metrics", "evil.example:" + place.split(":")[1])[0] == 421


def test_a_superlink_that_is_there_and_does_nothing_is_not_ready(served, tmp_path):
    """The real one, as `start` runs it; gRPC's health service is what an orchestrator asks too."""
    server, place = served
    (program,) = [one for one in programs(Start(server)) if one.name == "superlink"]
    _tell(server.run / "processes" / "status.json", superlink="running", edge="running")
    with Processes(tmp_path / "logs") as processes:
        superlink = processes.start("superlink", list(program.command), **program.environment)
        until("it is ready", lambda: _get(f"http://{place}/readyz") == (200, "ready\n"))
        assert healthy(Start(server))
        os.kill(superlink.pid, signal.SIGSTOP)
        until("it is not", lambda: _get(f"http://{place}/readyz")[0] == 503)
        assert "superlink does not answer" in _get(f"http://{place}/readyz")[1]
        os.kill(superlink.pid, signal.SIGCONT)
        until("it is again", lambda: _get(f"http://{place}/readyz")[0] == 200)


def _tell(path, **states):
    programs = {name: {"state": state} for name, state in states.items()}
    write_whole(path, json.dumps({"pid": os.getpid(), "programs": programs}).encode())


def test_the_page_is_for_this_machine_alone():
    """Bound to 127.0.0.1 and to no other of its addresses."""
    with listening(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_an_address_opens_once_and_the_next_lies_in_a_private_file(served):
    server, _ = served
    url = server.run / "dashboard.url"
    assert stat.S_IMODE(url.stat().st_mode) == 0o600
    first = url.read_text()
    assert _get(first)[0] == 200
    assert _get(first)[0] == 403
    second = url.read_text()
    assert second != first
    assert _get(second)[0] == 200
    assert _get(second.partition("enter")[0] + "now")[0] == 403, "without the cookie nothing is told"


def test_the_page_shows_it_live_and_runs_nothing_that_it_shows(served, tmp_path):
    server, _ = served
    with in_browser(tmp_path / "profile") as page:
        page.go((server.run / "dashboard.url").read_text())
        page.until("document.querySelector('#sites td') !== null")
        said = page.run("document.body.innerText")
        for word in (
            "alpha",
            "-72.5 s",
            "200 GB or more",
            "subset: 1 of 2 sites",
            "beta: no-reply",
            "3.0 MB",
        ):
            assert word in said
        assert HOSTILE in said
        assert page.run("document.title") == server.name
        assert page.run("document.querySelectorAll('main img').length") == 0
        assert page.run("document.querySelector('#sites .dot').className") == "dot on"
        log = AuditLog(server.folder / "runs" / "chest-1-0a1b2c3d" / "audit.jsonl")
        log.append("update.admitted", run="run-1", round=2, site="beta")
        page.until("document.body.innerText.includes('alpha, beta')")
        loaded = page.run("performance.getEntriesByType('resource').map(e => e.name).join(' ')")
        assert set(re.findall(r"https?://([^/ ]+)", loaded)) == {page.run("location.host")}
