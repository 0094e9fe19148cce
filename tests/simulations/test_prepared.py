"""Hospitals that are prepared once: found again, gone on with after a kill, never shared where a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.index import Index
from client.intake.ingest import ingest
from client.policy import Policy
from client.site import init_site, load_site
from client.store import build_store
from common.errors import FederationError, SettingsError
from simulations.arms import arm_site
from simulations.board import board
from simulations.crew import crew
from simulations.hospitals import write_hospital
from simulations.prepare import VIRTUAL_MACHINES
from simulations.prepared import _alone, digest_of, dressed, hospitals_of, prepared
from simulations.scenario import load_scenario

_SCENARIO = """
base = "demo"
[scenario]
name = "few"
arms = ["federated"]
least_patients = 2
[[site]]
name = "practice"
copies = 3
patients = [8, 10]
prevalence = [0.4, 0.6]
scanners = { aster-dr = 1, cygnus-dr = 1 }
one_scanner = true
[plan.input]
shape = [32, 32]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    (folder / "few.toml").write_text(_SCENARIO)
    scenario = load_scenario(folder / "few.toml")
    with board() as bars, crew(bars, 1) as hands:
        return scenario, folder, prepared(scenario, folder, hands)


def test_no_export_stays_and_every_hospital_is_whole(made):
    _, _, federation = made
    assert federation.names == ("practice-001", "practice-002", "practice-003")
    assert not (federation.folder / "incoming").exists()
    for name, report in federation.reports.items():
        with Index(federation.site(name).index) as index:
            assert len(index.images()) == report.accepted > 0


def test_what_is_there_is_found_and_only_what_is_missing_is_made_again(made):
    scenario, folder, federation = made
    before = {n: (federation.site(n).index).stat().st_mtime_ns for n in federation.names}
    (federation.folder / "done" / "practice-002.json").unlink()  # as if killed before its mark
    with board() as bars, crew(bars, 1) as hands:
        again = prepared(scenario, folder, hands)
    after = {n: (again.site(n).index).stat().st_mtime_ns for n in again.names}
    assert again.names == federation.names
    assert {n for n in after if after[n] != before[n]} == {"practice-002"}
    assert {n: r.accepted for n, r in again.reports.items()} == {
        n: r.accepted for n, r in federation.reports.items()
    }


def test_files_read_here_come_to_what_a_limited_worker_makes_of_them(made, tmp_path):
    scenario, _, federation = made
    spec = hospitals_of(scenario)[0]
    write_hospital(spec, tmp_path / "export", scenario.scenario.seed, workers=1)
    site = init_site(
        tmp_path / "site",
        spec.name,
        simulation_seed=scenario.scenario.seed,
        policy=Policy(min_patients=2),
        makers=VIRTUAL_MACHINES,
    )
    ingest(site, tmp_path / "export", tmp_path / "export" / "labels.csv", workers=1)
    store = build_store(site, scenario.plan_for("federated").input, workers=1)
    here = federation.site(spec.name)
    with Index(site.index) as one, Index(here.index) as two:
        assert one.images() == two.images()
    assert (store.images == build_store(here, scenario.plan_for("federated").input).images).all()


def test_a_real_hospital_never_reads_files_here(tmp_path):
    site = init_site(tmp_path / "real", "real", policy=Policy())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(b"x")
    with pytest.raises(SettingsError, match="processes of their own"):
        ingest(site, tmp_path / "in", None, workers=0)


def test_a_run_writes_into_its_own_index_and_shares_the_images(made, tmp_path):
    _, _, federation = made
    name = federation.names[0]
    run = dressed(federation, tmp_path / "run")
    with Index(arm_site(run, "federated", name).index) as index:
        index.record_run("run-1", [index.images()[0].patient])
        assert index.trained_on()
    with Index(federation.site(name).index) as index:
        assert not index.trained_on()
    images = (run.folder / name / "data" / "dicom").resolve()
    assert images == federation.site(name).dicom.resolve()
    assert dressed(federation, tmp_path / "run").names == federation.names  # again: left as it is
    assert load_site(run.folder / name).policy.min_patients == 2


def test_the_digest_is_of_hospitals_and_not_of_how_they_train(made):
    scenario, folder, _ = made
    other = load_scenario(folder / "few.toml", rounds=99)
    assert digest_of(other) == digest_of(scenario)
    (folder / "more.toml").write_text(_SCENARIO.replace("[8, 10]", "[8, 11]"))
    assert digest_of(load_scenario(folder / "more.toml")) != digest_of(scenario)
    assert digest_of(load_scenario(folder / "few.toml", seed=5)) != digest_of(scenario)


def test_two_processes_do_not_prepare_the_same_hospitals(tmp_path: Path):
    with _alone(tmp_path / "folder"), pytest.raises(FederationError) as raised, _alone(tmp_path / "folder"):
        pass
    assert raised.value.code == "out-busy"
