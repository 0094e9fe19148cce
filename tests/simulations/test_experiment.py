"""A whole virtual run, looked at from outside: what is on disk, what the records claim, what leaked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from client.intake.quarantine import Quarantine
from client.privacy.ledger import Ledger
from client.site import Site, load_site
from client.suppression import COUNT_STEP as COARSE
from common import checkpoints
from common.audit import verify
from common.errors import StorageError
from common.plan import load_plan
from server.records import RunRecord, read_record, write_record
from simulations import experiment
from simulations.experiment import network
from simulations.export import export
from tests.simulations.runs import ALL, FEW, HOSPITALS, PATIENTS, small

DELTA = 1e-5


@pytest.fixture(scope="session")
def record(run: Path) -> RunRecord:
    return read_record(run / "metrics.json")


def arm_sites(run: Path, arm: str) -> list[Site]:
    return [load_site(run / "federation" / "arms" / arm / name) for name in HOSPITALS]


# What is there


def test_every_file_that_the_docstring_names_is_there(run: Path) -> None:
    named = re.findall(r"^runs/<id>/(\S+)", experiment.__doc__ or "", re.MULTILINE)
    assert len(named) > 6
    for name in named:
        for arm in ALL if "<arm>" in name else [""]:
            for site in HOSPITALS if "<name>" in name else [""]:
                path = run / name.replace("<arm>", arm).replace("<name>", site)
                assert path.is_dir() if name.endswith("/") else path.stat().st_size > 0, path
    for site in HOSPITALS:
        assert (run / "sites" / site / "report.html").stat().st_size > 10_000
    for arm in ALL:
        assert (run / "arms" / arm / "record.json").is_file()


def test_every_arm_is_recorded_at_every_hospital_and_nothing_was_held_back(record: RunRecord) -> None:
    assert tuple(record.arms) == ALL
    for name, arm in record.arms.items():
        assert tuple(sorted(arm.sites)) == HOSPITALS, name
        for metrics in arm.sites.values():
            everybody = metrics.models[0].groups[0]
            assert everybody.group == "all"
            assert everybody.auroc is not None, name
            assert everybody.auroc.low <= everybody.auroc.value <= everybody.auroc.high
            assert metrics.simulated


def test_all_arms_tested_the_same_patients(record: RunRecord) -> None:
    for site in HOSPITALS:
        cells = {
            (arm.sites[site].models[0].groups[0].positives, arm.sites[site].models[0].groups[0].negatives)
            for arm in record.arms.values()
        }
        for counts in zip(*cells, strict=True):  # in fives, where they left a hospital
            assert max(counts) - min(counts) <= COARSE
        assert all(sum(cell) == pytest.approx(PATIENTS / 2 * 0.5, abs=2 * COARSE) for cell in cells)


def test_the_published_model_is_the_private_one_and_its_plan_beside_it(run: Path, record: RunRecord) -> None:
    plan = load_plan(run / "plan.toml")
    assert plan.private
    assert plan.digest == record.plan_digest
    one, two = (checkpoints.load(p / "model.safetensors") for p in (run, run / "arms" / "federated-dp"))
    assert one.plan_digest == plan.digest
    assert all(one.arrays[name].tobytes() == two.arrays[name].tobytes() for name in two.arrays)
    assert network(run, "federated-dp", plan)


def test_who_took_part_is_recorded(record: RunRecord) -> None:
    for arm in ("federated", "federated-dp"):
        ran = record.arms[arm].federation
        assert ran is not None
        assert ran.expected == ran.registered == ran.trained == HOSPITALS
        assert (ran.subset, ran.status, len(ran.rounds)) == (False, "completed", 3)
        assert all(tuple(sorted(round_.sites)) == HOSPITALS for round_ in ran.rounds)
    assert record.arms["alone"].federation is None
    assert record.arms["pooled"].federation is None


def test_what_came_in_is_recorded_per_hospital(record: RunRecord) -> None:
    assert tuple(sorted(record.intake)) == HOSPITALS
    assert record.intake["alder"].refused.get("burned-in", 0) is not None
    assert all(summary.accepted and summary.accepted > 100 for summary in record.intake.values())


def test_pairs_of_models_are_compared_on_the_same_patients(record: RunRecord) -> None:
    for site in HOSPITALS:
        pairs = {(c.model, c.other) for c in record.comparisons[site]}
        assert {("federated", "alone"), ("federated-dp", "federated"), ("pooled", "federated")} <= pairs
        for comparison in record.comparisons[site]:
            found = {
                name: record.arms[name].sites[site].models[0].groups[0].auroc.value
                for name in ALL
                if name in {comparison.model, comparison.other}
            }
            if len(found) == 2 and comparison.metric == "auroc":
                difference = found[comparison.model] - found[comparison.other]
                # Figures leave to a thousandth, each rounded by itself.
                assert comparison.difference.value == pytest.approx(difference, abs=1.5e-3)


def test_metrics_json_reads_back_equal(run: Path, record: RunRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "again.json")
    assert read_record(tmp_path / "again.json") == record
    assert (tmp_path / "again.json").read_bytes() == (run / "metrics.json").read_bytes()


def test_the_report_says_what_the_record_says(run: Path, record: RunRecord) -> None:
    page = (run / "report.html").read_text()
    assert "Simulation: virtual hospitals" in page
    for arm in ("alone", "federated", "federated-dp", "pooled"):
        for site in HOSPITALS:
            auroc = record.arms[arm].sites[site].models[0].groups[0].auroc
            assert f"{auroc.value:.2f}" in page, (arm, site)
    assert record.run in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_the_log_is_whole(run: Path) -> None:
    assert verify(run / "audit.jsonl").count > 8


def test_the_simulation_only_questions_were_asked(record: RunRecord) -> None:
    only = record.simulation_only
    assert only is not None
    assert only.planted_weak_scanner
    assert {guess.source for guess in only.scanner_guess} == {"features", "pixels"}
    assert len(only.same_chest) >= 4


def test_the_bias_lab_asked_everything_of_the_model_the_report_is_about(run: Path, record: RunRecord) -> None:
    only = record.simulation_only
    assert only is not None
    assert only.bias is not None
    assert only.bias.model == "federated"
    asked = {probe.probe for probe in only.bias.probes}
    assert asked >= {"move", "dependence", "occlusion", "decode", "saliency"}
    assert {p.round for p in only.bias.probes if p.source == "score" and p.probe == "decode"} >= {1, 2, None}
    assert {picture.kind for picture in only.bias.pictures} == {"machines", "hidden", "saliency"}
    assert only.bias.findings is not None
    assert 'id="bias"' in (run / "report.html").read_text()


# Privacy


def test_each_arm_has_ledgers_of_its_own_marked_simulated(run: Path) -> None:
    ledgers = {site.ledger.resolve() for arm in ALL for site in arm_sites(run, arm)}
    assert len(ledgers) == len(ALL) * len(HOSPITALS)
    assert len({path.stat().st_ino for path in ledgers}) == len(ledgers)
    runs = {}
    for arm in ALL:
        for site in arm_sites(run, arm):
            assert site.simulated
            with Ledger(site.ledger, simulated=True) as ledger:
                assert ledger.charges, arm
                for charge in ledger.charges:
                    runs.setdefault(charge.release.run.removesuffix("-personalised"), set()).add(arm)
    assert all(len(arms) == 1 for arms in runs.values()), "a run is charged in one arm's ledgers only"


def test_the_private_arm_spent_something_and_no_more_than_eight(run: Path, record: RunRecord) -> None:
    for site in arm_sites(run, "federated-dp"):
        with Ledger(site.ledger, simulated=True) as ledger:
            spent = ledger.epsilon(DELTA)
        assert 0 < spent <= 8, "for life, whatever left the hospital in this arm"
        told = record.arms["federated-dp"].sites[site.name].epsilon
        assert told is not None
        assert 0 < told <= 8
        assert told == pytest.approx(spent)


@pytest.mark.parametrize("arm", ["alone", "federated", "pooled"])
def test_an_arm_without_privacy_is_on_record_as_infinite(run: Path, arm: str) -> None:
    for site in arm_sites(run, arm):
        with Ledger(site.ledger, simulated=True) as ledger:
            assert math.isinf(ledger.epsilon(DELTA))


def test_all_training_patients_are_charged_in_the_private_arm(run: Path) -> None:
    for site in arm_sites(run, "federated-dp"):
        with Ledger(site.ledger, simulated=True) as ledger:
            (patients,) = {charge.patients for charge in ledger.charges}
            # All whose images passed every gate: now and then a noisy one waits for a person.
            assert PATIENTS / 2 * 0.4 - 3 <= patients <= PATIENTS / 2 * 0.4


# The same seed


def weights(run: Path, arm: str) -> dict[str, bytes]:
    arrays = checkpoints.load(run / "arms" / arm / "model.safetensors").arrays
    assert all(np.abs(array).max() > 0 for array in arrays.values())
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("arm", ["federated", "pooled"])
def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_does_not(
    twins: tuple[Path, Path, Path], arm: str
) -> None:
    one, two, other = (weights(run, arm) for run in twins)
    assert one == two
    assert one != other


def test_private_weights_are_never_the_same_twice(twins: tuple[Path, Path, Path]) -> None:
    one, two, _ = (weights(run, "federated-dp") for run in twins)
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)


def test_the_same_seed_gives_the_same_figures(twins: tuple[Path, Path, Path]) -> None:
    one, two = (read_record(run / "metrics.json").arms["federated"] for run in twins[:2])
    assert {n: m.models for n, m in one.sites.items()} == {n: m.models for n, m in two.sites.items()}


# Nothing identified


def identifiers(folder: Path) -> set[str]:
    """Every name, number and accession in the headers of an export."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        try:
            ds = pydicom.dcmread(path, stop_before_pixels=True) if path.is_file() else None
        except InvalidDicomError:
            continue
        if ds is not None and "PatientName" in ds:
            found |= set(re.split(r"[\^ ]", str(ds.PatientName)))
            found |= {str(ds.PatientID), str(ds.AccessionNumber), str(ds.StudyInstanceUID)}
    return {word for word in found if len(word) >= 5}


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is packed in it."""
    yield path.read_bytes()
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                yield "\n".join(map(str, file[name].ravel())).encode()


def hits(root: Path, words: set[str]) -> dict[str, str]:
    """Files below `root` in which any of the words stands, as bytes, in any case, and which."""
    wanted = {word.upper().encode(code) for word in words for code in ("utf-8", "latin-1")}
    found: dict[str, str] = {}
    for path in (path for path in root.rglob("*") if path.is_file()):
        for data in map(bytes.upper, contents(path)):
            word = next((word for word in wanted if word in data), None)
            if word is not None:
                found[str(path.relative_to(root))] = repr(word)
    return found


def test_no_name_and_no_number_of_a_patient_is_anywhere_but_sealed_in_quarantine(
    twins: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The very patients of that run are written once more, to know whom to look for."""
    export(tmp_path / "again", len(HOSPITALS), FEW, seed=1)
    words = identifiers(tmp_path / "again")
    assert len(words) > 3 * FEW
    run = twins[0]
    sites = [load_site(path.parent) for path in (run / "federation").glob("*/site.toml")]
    originals = tmp_path / "originals"
    originals.mkdir()
    for site in sites:
        quarantine = Quarantine.of(site)
        for refusal in quarantine.refusals():
            with quarantine.original(refusal.id, originals) as opened:
                (originals / refusal.id).write_bytes(opened.path.read_bytes())
    assert hits(originals, words), "the refused originals, unsealed: so these are the patients of this run"
    assert hits(run, words) == {}


def test_what_the_archives_exported_is_gone(run: Path, twins: tuple[Path, Path, Path]) -> None:
    for folder in (run, *twins):
        assert not (folder / "federation" / "incoming").exists()


def test_a_folder_for_runs_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        experiment.run_scenario(small(tmp_path), tmp_path / "file" / "runs")
