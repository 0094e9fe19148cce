"""Bad input: one clear error that names the input, the rule and the remedy, exit status 2, nothing changed.

Every case is a command a hospital types, in a process of its own, at a site that already holds good patients.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from client.intake.ingest import ingest
from client.policy import Policy
from client.privacy.ledger import Ledger
from client.site import init_site
from client.store import build_store
from common.plan import parse_plan
from simulations.hospitals import HospitalSpec, write_hospital
from tests.limited import limited

BIN = Path(sys.executable).parent
SCANNER = "aster-dr"
PLAN = """
[study]
name = "bad-input"
question = "Is there an opacity?"
[task]
kind = "binary"
classes = ["opacity"]
[input]
modalities = ["DX", "CR"]
shape = [64, 64]
[labels]
source = "synthetic"
provenance = "phantoms"
[model]
name = "scatter"
trainable = "head"
[federation]
rounds = 1
"""


@dataclass(frozen=True)
class Hospital:
    """A site folder and the folder its archive exports to."""

    site: Path
    export: Path

    @property
    def labels(self) -> Path:
        return self.export / "labels.csv"

    def run(self, *words: str | Path, file_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
        """Type `consilium-site`; `file_bytes` is the size at which every file is full, as a disk is."""
        command = [BIN / "consilium-site", *words, "--site", self.site]
        return subprocess.run(
            command if file_bytes is None else limited(file_bytes, command),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def ingest(self) -> subprocess.CompletedProcess[str]:
        return self.run("ingest", self.export, "--labels", self.labels, "--workers", "1")

    def train(self, plan: str = PLAN) -> subprocess.CompletedProcess[str]:
        path = self.site / "plan.toml"
        path.write_text(plan)
        return self.run("train", path, "--out", self.site / "out")

    def rows(self) -> list[dict[str, str]]:
        with self.labels.open(newline="") as file:
            return list(csv.DictReader(file))

    def write(self, rows: Iterable[dict[str, str]], columns: Iterable[str] | None = None) -> None:
        """Replace the label table."""
        rows = list(rows)
        with self.labels.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns or rows[0]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def kept(self) -> dict[str, str]:
        """Everything the site keeps: what the index says, and the bytes of store and images."""
        found = {}
        index = self.site / "data" / "index.sqlite"
        if index.exists():
            with sqlite3.connect(f"file:{index}?mode=ro", uri=True) as database:
                found["index"] = "\n".join(database.iterdump())
            database.close()
        for part in ("store", "dicom", "volumes"):
            for path in sorted((self.site / "data" / part).rglob("*")):
                if path.is_file():
                    found[str(path.relative_to(self.site))] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def spec(patients: int, prevalence: float = 0.5) -> HospitalSpec:
    only = {SCANNER: 1.0}
    return HospitalSpec("oak", "Oak Hospital", patients, prevalence, {0: only, 1: only}, {SCANNER: 0.3})


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The export of a hospital of twelve patients; copied before anything in it is spoilt."""
    folder = tmp_path_factory.mktemp("archive")
    write_hospital(spec(12), folder, seed=1, workers=1)
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory, archive: Path) -> Path:
    """A site that took the archive in and preprocessed it; copied for every test."""
    folder = tmp_path_factory.mktemp("good")
    site = init_site(folder, "oak", policy=Policy(allow_non_private=True, min_patients=4))
    Ledger.create(site.ledger).close()
    ingest(site, archive, archive / "labels.csv", workers=1)
    build_store(site, parse_plan(PLAN).input)
    return folder


@pytest.fixture
def hospital(tmp_path: Path, good: Path, archive: Path) -> Hospital:
    shutil.copytree(good, tmp_path / "site")
    shutil.copytree(archive, tmp_path / "export")
    return Hospital(tmp_path / "site", tmp_path / "export")


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """One message on stderr that names the words, exit status 2, no traceback, no patient."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    message = result.stderr.strip()
    assert message.startswith("error: ")
    assert message.count("error: ") == 1
    for word in words:
        assert word in message, message
    assert message.count(". ") >= 1, "a remedy follows the rule"


def first_twice(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [*rows, rows[0]]


def first_contradicted(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [*rows, {**rows[0], "label": str(1 - int(rows[0]["label"]))}]


def first_empty(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**rows[0], "label": ""}, *rows[1:]]


def a_word_for_a_label(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**rows[0], "label": "maybe"}, *rows[1:]]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (first_twice, "repeats line 2"),
        (first_contradicted, "contradicts line 2"),
        (first_empty, "label is empty"),
        (a_word_for_a_label, "number"),
        (lambda rows: [], "no labels"),
    ],
    ids=["duplicated", "contradictory", "empty", "a word", "none"],
)
def test_a_label_table_that_is_wrong_is_refused_by_name(
    hospital: Hospital, spoil: Callable[[list[dict[str, str]]], list[dict[str, str]]], word: str
) -> None:
    before = hospital.kept()
    rows = hospital.rows()
    hospital.write(spoil(rows), columns=rows[0])
    result = hospital.ingest()
    refused(result, "labels.csv", word)
    assert rows[0]["accession"] not in result.stderr
    assert hospital.kept() == before


def test_a_label_table_without_a_column_is_refused_by_name(hospital: Hospital) -> None:
    before = hospital.kept()
    hospital.write(hospital.rows(), columns=["accession", "source", "version"])
    refused(hospital.ingest(), "labels.csv", "label")
    assert hospital.kept() == before


def test_a_label_table_that_is_not_there_is_refused_by_name(hospital: Hospital) -> None:
    before = hospital.kept()
    hospital.labels.unlink()
    refused(hospital.ingest(), "labels.csv", "not there", "--labels")
    assert hospital.kept() == before


def test_a_label_for_an_image_that_is_not_there_is_refused(hospital: Hospital) -> None:
    before = hospital.kept()
    rows = hospital.rows()
    hospital.write([*rows, {**rows[0], "accession": "NOSUCH12345"}])
    result = hospital.ingest()
    refused(result, "labels.csv", "image")
    assert "NOSUCH12345" not in result.stderr
    assert hospital.kept() == before


def test_an_image_without_a_label_is_refused(hospital: Hospital) -> None:
    before = hospital.kept()
    rows = hospital.rows()
    hospital.write(rows[1:])
    result = hospital.ingest()
    refused(result, "labels.csv", "no label", "--allow-unlabelled")
    assert rows[0]["accession"] not in result.stderr
    assert hospital.kept() == before


def test_an_image_without_a_label_is_taken_in_when_that_is_said(hospital: Hospital) -> None:
    hospital.write(hospital.rows()[1:])
    words = ("ingest", hospital.export, "--labels", hospital.labels, "--allow-unlabelled")
    assert hospital.run(*words).returncode == 0


def test_a_patient_in_two_splits_is_refused(hospital: Hospital) -> None:
    before = hospital.kept()
    rows = hospital.rows()
    patients = owners(hospital)
    twice = next(p for p in patients.values() if list(patients.values()).count(p) > 1)
    mine = [accession for accession, patient in patients.items() if patient == twice]
    for row in rows:
        row["split"] = "test" if row["accession"] == mine[0] else "train"
    hospital.write(rows)
    result = hospital.ingest()
    refused(result, "split")
    assert twice not in result.stderr
    assert hospital.kept() == before


def owners(hospital: Hospital) -> dict[str, str]:
    """Accession to patient number, read from the identified files."""
    found = {}
    for path in hospital.export.rglob("*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found[str(header.AccessionNumber)] = str(header.PatientID)
    return found


@pytest.mark.parametrize("kind", ["absent", "a file", "empty"])
def test_a_folder_that_cannot_be_taken_in_is_refused(hospital: Hospital, kind: str) -> None:
    before = hospital.kept()
    folder = hospital.export / "nothing"
    if kind == "a file":
        folder.write_text("not a folder")
    elif kind == "empty":
        folder.mkdir()
    refused(hospital.run("ingest", folder, "--labels", hospital.labels))
    assert hospital.kept() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder; the case above stands for it")
def test_a_folder_without_the_right_to_read_is_refused(hospital: Hospital) -> None:
    before = hospital.kept()
    hospital.export.chmod(0)
    try:
        refused(hospital.run("ingest", hospital.export))
    finally:
        hospital.export.chmod(0o700)
    assert hospital.kept() == before


def test_labels_of_one_class_only_are_refused(hospital: Hospital) -> None:
    before = hospital.kept()
    hospital.write({**row, "label": "0", "version": "2025-1"} for row in hospital.rows())
    refused(hospital.ingest(), "labels.csv", "one class")
    assert hospital.kept() == before


def test_one_class_among_training_patients_is_refused_before_training(hospital: Hospital) -> None:
    """The classes are there, but the splits put all positives into the test part."""
    owner_of, rows = owners(hospital), hospital.rows()
    ill = {owner_of[row["accession"]] for row in rows if row["label"] == "1"}
    hospital.write({**row, "split": "test" if owner_of[row["accession"]] in ill else "train"} for row in rows)
    assert hospital.ingest().returncode == 0
    before = hospital.kept()
    refused(hospital.train(), "site oak", "same label")
    assert hospital.kept() == before


def test_a_site_with_three_patients_is_refused_before_training(tmp_path: Path, archive: Path) -> None:
    """Both classes are there; three patients are too few all the same. No store is made for them."""
    site = init_site(tmp_path / "site", "oak", policy=Policy(allow_non_private=True))
    Ledger.create(site.ledger).close()
    hospital = Hospital(site.folder, Path(shutil.copytree(archive, tmp_path / "export")))
    owner_of, rows = owners(hospital), hospital.rows()
    label_of = {owner_of[row["accession"]]: row["label"] for row in rows}
    by_label = sorted(label_of, key=lambda owner: (label_of[owner], owner))
    keep = {by_label[0], by_label[1], by_label[-1]}
    for path in sorted(hospital.export.rglob("*.dcm")):
        if str(pydicom.dcmread(path, stop_before_pixels=True).PatientID) not in keep:
            path.unlink()
    hospital.write(row for row in rows if owner_of[row["accession"]] in keep)
    assert hospital.ingest().returncode == 0
    before = hospital.kept()
    refused(hospital.train(), "patients", "20 are needed")
    assert hospital.kept() == before


@pytest.mark.parametrize(
    ("addition", "where"),
    [
        ("[trainign]\nseed = 1\n", "trainign"),
        ("[training]\nlearing_rate = 1.0\n", "training.learing_rate"),
        ("[privacy]\nmode = 'patient-dp'\nepsilon = -8.0\n", "privacy.epsilon"),
    ],
    ids=["unknown section", "unknown key", "negative epsilon"],
)
def test_a_plan_with_a_mistake_is_refused_by_place(hospital: Hospital, addition: str, where: str) -> None:
    before = hospital.kept()
    refused(hospital.train(PLAN + addition), "plan.toml", where)
    assert hospital.kept() == before


def test_a_plan_with_an_unknown_network_is_refused_with_the_known_ones(hospital: Hospital) -> None:
    before = hospital.kept()
    refused(hospital.train(PLAN.replace('"scatter"', '"alexnet"')), "plan.toml", "model.name", "densenet121")
    assert hospital.kept() == before


def test_a_plan_that_is_not_there_is_refused(hospital: Hospital) -> None:
    before = hospital.kept()
    refused(hospital.run("train", hospital.site / "nowhere.toml"), "nowhere.toml")
    assert hospital.kept() == before


def test_a_disk_that_fills_while_the_store_is_written_leaves_everything_as_it_was(hospital: Hospital) -> None:
    """Another input shape asks for another store; the file that must hold it is cut short."""
    before = hospital.kept()
    plan = hospital.site / "plan.toml"
    plan.write_text(PLAN.replace("[64, 64]", "[512, 512]"))
    largest = max(path.stat().st_size for path in hospital.site.rglob("*") if path.is_file())
    result = hospital.run("train", plan, "--out", hospital.site / "out", file_bytes=largest + 65_536)
    refused(result, "the disk is full", "Free space")
    assert hospital.kept() == before
