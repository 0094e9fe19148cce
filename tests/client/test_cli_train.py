"""A hospital's whole day at the command line: take in, look, train under privacy, withdraw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.index import Index
from client.site import load_site
from common import checkpoints
from simulations.hospitals import HospitalSpec, Truth, write_hospital

PLAN = """
[study]
name = "a-day"
question = "Is there an opacity?"
[task]
kind = "binary"
classes = ["opacity"]
[input]
modalities = ["DX", "CR"]
shape = [32, 32]
[labels]
source = "synthetic"
provenance = "phantoms"
[model]
name = "scatter"
trainable = "head"
[federation]
rounds = 2
[evaluation]
bootstrap = 100
"""
PRIVATE = PLAN + '[privacy]\nmode = "patient-dp"\nepsilon = 8.0\nsteps_per_round = 2\n'
SCANNER = {"aster-dr": 1.0}


def run(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words])


def result_of(*words: str | Path):
    """The JSON a command printed; it must have succeeded."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> tuple[Path, Path, Truth]:
    """Site folder, export folder, and what is really in the export."""
    root = tmp_path_factory.mktemp("day")
    spec = HospitalSpec(
        "oak", "Oak Hospital", 44, 0.5, {0: SCANNER, 1: SCANNER}, {"aster-dr": 0.3}, burned_in=2, broken=2
    )
    truth = write_hospital(spec, root / "export", seed=4, workers=1)
    result_of("init", "oak", "--site", root / "site")
    return root / "site", root / "export", truth


@pytest.fixture(scope="module")
def taken_in(day):
    site, export, _ = day
    return result_of("ingest", export, "--labels", export / "labels.csv", "--site", site, "--workers", "1")


@pytest.fixture(scope="module")
def trained(day, taken_in):
    site, _, _ = day
    (site / "private.toml").write_text(PRIVATE)
    return result_of("train", site / "private.toml", "--out", site / "out", "--site", site)


def test_ingest_accounts_for_every_file(day, taken_in) -> None:
    _, export, truth = day
    files = [path for path in export.rglob("*") if path.is_file() and path.name != "labels.csv"]
    assert taken_in["received"] == len(files)
    accounted = taken_in["accepted"] + taken_in["unchanged"] + sum(taken_in["refused"].values())
    assert accounted == len(files)
    assert taken_in["accepted"] == len(truth.readable)


def test_ingesting_again_costs_nothing_and_changes_nothing(day, taken_in) -> None:
    site, export, _ = day
    before = result_of("status", "--site", site)
    again = result_of("ingest", export, "--labels", export / "labels.csv", "--site", site, "--workers", "1")
    assert (again["accepted"], again["unchanged"]) == (0, taken_in["accepted"])
    after = result_of("status", "--site", site)
    moved = {"ingests": 0, "last_ingest": 0, "disk": 0}
    assert {**after, **moved} == {**before, **moved}


def test_refused_says_by_code_what_to_do(day, taken_in) -> None:
    site, _, _ = day
    rows = result_of("quarantine", "list", "--site", site)
    assert {row["code"]: row["count"] for row in rows} == taken_in["refused"]
    assert all(row["rule"] and row["remedy"] for row in rows)


def test_no_output_names_a_patient(day, taken_in, trained) -> None:
    """Names, numbers and accessions of the export appear in nothing that is printed."""
    site, _, truth = day
    said = "".join(run(*words, "--site", site).output for words in (["status"], ["quarantine", "list"]))
    for image in truth.images:
        assert image.patient not in said
        assert image.accession not in said


def test_training_under_privacy_is_paid_for_and_measured(day, trained) -> None:
    site, _, _ = day
    assert trained["rounds"] == 2
    assert 0 < trained["epsilon"] <= 8
    status = result_of("status", "--site", site)
    assert status["epsilon_spent"] is not None
    metrics = json.loads((site / "out" / "metrics.json").read_text())
    assert metrics["models"][0]["model"] == "alone"
    assert metrics["epsilon"] == trained["epsilon"]
    assert "</html>" in Path(trained["report"]).read_text()


def test_the_model_on_disk_is_the_one_that_was_trained(day, trained) -> None:
    site, _, _ = day
    kept = checkpoints.load(site / "out" / "model.safetensors")
    assert (kept.run, kept.round) == (trained["run"], 2)
    assert all(array.dtype == "float32" for array in kept.arrays.values())


def test_a_plan_without_privacy_is_refused_by_the_strict_policy(day, taken_in) -> None:
    site, _, _ = day
    (site / "open.toml").write_text(PLAN)
    result = run("train", site / "open.toml", "--out", site / "open", "--site", site)
    assert result.exit_code == 4
    assert "allow_non_private" in result.stderr
    assert not (site / "open").exists()


def test_a_lost_ledger_is_refused_and_never_made_anew(day, trained) -> None:
    """A ledger that is missing must not pass for an unspent one."""
    site, _, _ = day
    ledger = load_site(site).ledger
    hidden = ledger.rename(ledger.with_suffix(".hidden"))
    try:
        result = run("train", site / "private.toml", "--out", site / "lost", "--site", site)
        assert result.exit_code == 5
        assert not ledger.exists()
    finally:
        hidden.rename(ledger)


def test_a_withdrawn_patient_is_gone_and_the_run_that_used_them_is_named(day, trained) -> None:
    site, export, _ = day
    with Index(load_site(site).index) as index:
        patient = next(row.pseudonym for row in index.patients() if index.runs_of(row.pseudonym))
    found = result_of("withdraw", patient, "--site", site)
    assert trained["run"] in found["runs"]
    assert found["sop_uids"]
    result_of("ingest", export, "--labels", export / "labels.csv", "--site", site, "--workers", "1")
    with Index(load_site(site).index) as index:
        assert patient not in {row.pseudonym for row in index.patients()}


def test_withdraw_takes_the_hospitals_number_unseen(day, taken_in) -> None:
    site, _, truth = day
    number = truth.readable[-1].patient
    result = CliRunner().invoke(app, ["withdraw", "--patient", "--site", str(site)], input=f"{number}\n")
    assert result.exit_code == 0, result.output
    assert number not in result.output


def test_withdraw_asks_for_exactly_one_name(day) -> None:
    site, _, _ = day
    assert run("withdraw", "--site", site).exit_code == 2
    assert run("withdraw", "abc", "--patient", "--site", site).exit_code == 2
