"""The consortium's report of a study that a federation carried out, and not a simulation of several arms."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from client import direct
from common.audit import AuditLog
from common.errors import FederationError
from common.plan import dump_plan, parse_plan
from server.cli import app
from server.journal import write_federation
from server.records import read_record
from server.study_record import record_of
from simulations.grid import InProcessGrid, run_on
from tests.counted import survey_plan
from tests.server.report_records import realistic
from tests.toy import toy_plan, toy_service

AT = "2026-01-02T03:04:05+00:00"


def _ended(home, plan=None, **changed):
    """A study with figures: the federated arm of a record, as a federation's journal leaves it."""
    record = realistic()
    arm = record.arms["federated"]
    figures = {"sites": arm.sites, "intake": record.intake, "weights": dict.fromkeys(arm.sites, 50)}
    ended = replace(arm.federation, **{**figures, **changed})
    home.mkdir()
    (home / "plan.toml").write_text(dump_plan(plan) if plan else record.plan_toml)
    write_federation(ended, home / "federation.json")
    (home / "audit.jsonl").write_text(json.dumps({"event": "run.ended", "time": AT}) + "\n")
    return ended


def _report(*words):
    return CliRunner().invoke(app, ["report", *map(str, words)])


def test_a_study_is_reported_from_its_folder(tmp_path):
    """Rounds over the real grid, and what they leave is all that the report needs."""
    for name, bucket in {"alpha": 100, "beta": 0}.items():
        direct.host(toy_service(tmp_path, name, bucket))
    out = tmp_path / "study"
    folders = [tmp_path / name for name in ("alpha", "beta")]
    plan = toy_plan(least_sites=1)
    run_on(InProcessGrid(folders), plan, out)
    said = _report(out, "--json")
    assert said.exit_code == 0, said.output
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "alpha" in page
    assert "beta" in page
    record = read_record(out / "metrics.json")
    assert record.plan_digest == plan.digest
    assert record.created.startswith("20")
    assert record.external == ("beta",), "it had nobody to train on"
    assert parse_plan(record.plan_toml).digest == plan.digest


def test_every_figure_is_the_federations_own(tmp_path):
    ended = _ended(tmp_path / "study")
    record = record_of(tmp_path / "study")
    assert set(record.arms) == {"federated-dp" if ended.private else "federated"}
    (arm,) = record.arms.values()
    assert arm.sites == ended.sites
    assert arm.seconds == sum(one.seconds for one in ended.rounds)
    assert (record.intake, record.created, record.run) == (ended.intake, AT, ended.run)
    assert record.simulation_only is None
    assert record.external == ()
    assert _report(tmp_path / "study").exit_code == 0
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert all(site in page for site in ended.sites)
    assert "2 January 2026, 03:04 UTC" in page


def test_a_report_elsewhere_and_made_again(tmp_path):
    _ended(tmp_path / "study")
    for _ in range(2):
        assert _report(tmp_path / "study", "--out", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").is_file()
    assert not (tmp_path / "study" / "report.html").exists()
    assert _report(tmp_path / "study" / "metrics.json").exit_code == 0


@pytest.mark.parametrize("status", ["running", "subset", "no-nodes"])
def test_no_report_is_made_from_half_a_run(tmp_path, status):
    _ended(tmp_path / "study", status=status)
    said = _report(tmp_path / "study")
    assert said.exit_code != 0
    assert f"it has not completed: {status}" in " ".join(said.output.split())
    with pytest.raises(FederationError) as caught:
        record_of(tmp_path / "study")
    assert caught.value.code == "run-unfinished"
    assert not (tmp_path / "study" / "report.html").exists()
    assert not (tmp_path / "study" / "metrics.json").exists()


def test_an_analysis_has_a_page_of_its_own(tmp_path):
    _ended(tmp_path / "study", plan=survey_plan())
    with pytest.raises(FederationError) as caught:
        record_of(tmp_path / "study")
    assert caught.value.code == "run-analysis"


def test_what_is_no_run_is_said(tmp_path):
    assert "it is not the record of a run" in " ".join(_report(tmp_path).output.split())


def test_the_log_may_hold_several_ends(tmp_path):
    """A study that ended early and was submitted again."""
    _ended(tmp_path / "study")
    AuditLog(tmp_path / "log.jsonl", None).append("run.ended", status="subset")
    first = (tmp_path / "log.jsonl").read_text()
    log = tmp_path / "study" / "audit.jsonl"
    log.write_text(first + log.read_text())
    assert record_of(tmp_path / "study").created == AT
