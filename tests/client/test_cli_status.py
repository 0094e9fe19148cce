"""What hospital IT reads of its own site: everything it asks for, true, and no wider than its terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from client.commands.status_table import human
from client.deid.pseudonyms import Pseudonyms
from client.index import Index
from client.intake.ingest import ingest
from client.privacy.ledger import Ledger
from client.site import Site, load_site
from client.withdraw import withdraw_patient
from tests.client.intake_files import export, image, label_table, new_site, to_bytes

BIN = Path(sys.executable).parent


def typed(*words: str | Path, columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Type `consilium-site` in a process of its own."""
    return subprocess.run(
        [BIN / "consilium-site", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": str(columns)},
    )


def status_of(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(typed("status", "--site", site.folder, "--json").stdout)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    """Six patients, one file sent twice, one burned in, one withdrawn, a split drawn for the rest."""
    base = tmp_path_factory.mktemp("day")
    site, folder = new_site(base / "site"), export(base / "in", 6)
    Ledger.create(site.ledger).close()
    shutil.copy(folder / "Abendroth_1.dcm", folder / "again.dcm")
    (folder / "burned.dcm").write_bytes(to_bytes(image(9, BurnedInAnnotation="YES")))
    lines = [f"ACC{n:06d},{n % 2},reader,1,{'test' if n == 4 else ''}" for n in range(6)]
    labels = label_table(base / "labels.csv", lines, "accession,label,source,version,split")
    ingest(site, folder, labels, workers=1)
    withdraw_patient(site, "HOSP-7700005")
    with Index(site.index) as index:
        parts = dict.fromkeys((patient.pseudonym for patient in index.patients()), "train")
        index.keep_parts("0123456789abcdef", parts)
    return site


def test_status_counts_what_is_there(site: Site) -> None:
    found = status_of(site)
    assert (found["patients"], found["withdrawn"], found["images"], found["labelled"]) == (5, 1, 5, 5)
    assert found["labels"] == {"0": 3, "1": 2}
    assert found["splits"] == {
        "label table": {"test": 1, "to be drawn": 4},
        "0123456789abcdef": {"train": 5},
    }
    assert found["manufacturers"] == {"Aster Imaging": 5}
    ((scanner, images),) = found["scanners"].items()
    assert images == 5
    assert scanner == "Aster Imaging DR-1 " + Pseudonyms.of(site).scanner("SN998877", "Aster Imaging", "DR-1")
    assert found["refused"] == {"review-burned-in": 1, "withdrawn": 1}
    assert found["last_ingest"]["files"] == 8
    assert found["last_ingest"]["images"] == 6
    assert found["ledger"] == {
        "charges": 0,
        "delta": 1e-4,
        "epsilon": None,
        "problem": "",
        "unbounded": False,
        "warnings": [],
    }
    held = sum(path.stat().st_size for path in site.dicom.rglob("*.dcm"))
    assert found["disk"]["used"]["dicom"] == held
    assert found["disk"]["free"] > 0


def test_status_is_no_wider_than_a_terminal_and_says_its_units(site: Site) -> None:
    said = typed("status", "--site", site.folder).stdout
    assert max(map(len, said.splitlines())) <= 80
    for words in (
        "5 (1 withdrawn)",
        "5 images of 1 scanner",
        "1 file",
        "8 files, 6 new, 1 refused",
        " UTC",
        "kB",
    ):
        assert words in said
    assert "nothing of ε 16" in said
    assert "HOSP" not in said


def test_a_ledger_that_another_process_holds_does_not_hide_the_rest(site: Site) -> None:
    with Ledger(site.ledger):
        assert status_of(site)["ledger"]["problem"] == "ledger-locked"
        said = typed("status", "--site", site.folder).stdout
    assert "in use by the service or a training" in said
    assert "5 (1 withdrawn)" in said


def test_a_ledger_that_is_missing_is_named(site: Site, tmp_path: Path) -> None:
    copy = load_site(Path(shutil.copytree(site.folder, tmp_path / "copy")))
    copy.ledger.unlink()
    assert status_of(copy)["ledger"]["problem"] == "ledger-missing"


def test_ingest_tells_what_it_did_and_where_to_read_on(tmp_path: Path) -> None:
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 2)
    (folder / "x.dcm").write_bytes(b"nothing")
    said = typed("ingest", folder, "--site", site.folder, "--workers", "1").stdout
    assert "images taken in" in said
    assert "consilium-site quarantine list" in said
    assert " s " in said
    listed = typed("quarantine", "list", "--site", site.folder).stdout
    assert "Leave it" in listed
    assert "quarantine show ID" in listed


@pytest.mark.parametrize("name", ["Sankt Anna", "../x", "", "a" * 64, "ÄÖ"])
def test_a_name_that_no_site_may_have_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    result = typed("init", name, "--site", tmp_path / "s")
    assert result.returncode == 2
    assert "a-z" in result.stderr
    assert "pattern" not in result.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("text", ["P1", "p" + "0" * 32, "P" + "0" * 31, "../../../x"])
def test_a_mistyped_pseudonym_is_not_answered_with_done(site: Site, text: str) -> None:
    before = status_of(site)["withdrawn"]
    result = typed("withdraw", text, "--site", site.folder)
    assert result.returncode == 2
    assert "Copy it whole" in result.stderr
    assert status_of(site)["withdrawn"] == before


def test_explanations_are_words(site: Site) -> None:
    said = {
        attribute: typed("deid", "explain", attribute, "--json").stdout
        for attribute in ("StudyDate", "PatientSex", "PatientID")
    }
    assert "moved back" in said["StudyDate"]
    assert "kept if F, M, O" in said["PatientSex"]
    assert "keyed code of the patient" in said["PatientID"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (76_073_467_904, "76.1 GB")]
)
def test_bytes_have_a_unit(size: int, text: str) -> None:
    assert human(size) == text
