"""Labels of several readers, in several versions: all are kept, one counts, by a rule that can be said."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deid.pseudonyms import Identity, Pseudonyms
from client.index import GivenLabel, Index
from client.index_labels import choose, version_key
from client.intake.ingest import ingest
from client.intake.quarantine import Quarantine
from client.intake.relabel import add_labels, count_labels
from client.intake.release import Reason, release
from client.withdraw import withdraw_patient
from common.errors import DataError, LabelError
from tests.client.intake_files import export, image, label_table, new_site, state_of, to_bytes

FIRST = ["ACC000000,0,anna,1", "ACC000001,1,anna,1", "ACC000002,0,anna,1", "ACC000003,1,anna,1"]


@pytest.fixture
def site(tmp_path):
    made = new_site(tmp_path / "site")
    ingest(made, export(tmp_path / "in"), label_table(tmp_path / "first.csv", FIRST), workers=1)
    return made


def said(site) -> list[tuple[object, str, str]]:
    """(label, source, version) of every image by accession."""
    names = Pseudonyms.of(site)
    with Index(site.index) as index:
        by_study = {row.study_uid: row for row in index.images()}
    rows = [by_study[names.uid(f"1.2.276.0.7230010.3.{n + 1}")] for n in range(len(by_study))]
    return [(row.label, row.label_source, row.label_version) for row in rows]


def given(label: int, source: str, version: str, split: str | None = None) -> GivenLabel:
    return GivenLabel(label, source, version, split)


def test_the_rule_of_the_current_label() -> None:
    anna1, anna2, anna10 = given(0, "anna", "1"), given(1, "anna", "2"), given(0, "anna", "10")
    ben = given(1, "ben", "1")
    assert choose(None, [], anna1) == anna1
    assert choose(anna1, [anna1], anna2) == anna2
    assert choose(anna10, [anna10], anna2) == anna10, "10 is newer than 2"
    assert choose(anna2, [anna2], ben) == ben, "a later reader counts"
    assert choose(anna2, [anna2], ben, keep_current=True) == anna2
    assert choose(ben, [anna2, ben], anna1) == anna2, "of the source that comes back the newest counts"
    assert choose(ben, [anna2, ben], anna2) == ben, "what is known already changes nothing"
    with pytest.raises(LabelError, match="same source and version"):
        choose(ben, [anna2, ben], given(0, "anna", "2"))


def test_versions_are_ordered_by_their_numbers() -> None:
    ordered = ["1", "1.2", "1.10", "2", "2024-03", "2024-11"]
    assert sorted(ordered, key=version_key) == ordered
    assert version_key("v9") < version_key("v10")


def test_a_later_reader_counts_and_the_first_is_kept(site, tmp_path) -> None:
    second = ["ACC000000,1,ben,1", "ACC000001,1,ben,1"]
    done = add_labels(site, label_table(tmp_path / "second.csv", second))
    assert (done.lines, done.images, done.new, done.current, done.waiting) == (2, 2, 2, 2, 0)
    assert said(site) == [(1, "ben", "1"), (1, "ben", "1"), (0, "anna", "1"), (1, "anna", "1")]
    again = add_labels(site, label_table(tmp_path / "second.csv", second))
    assert (again.new, again.current) == (0, 0)
    with Index(site.index) as index:
        counts = count_labels(index)
        assert sorted(len(history) for history in index.labels().values()) == [1, 1, 2, 2]
    assert (counts.read_twice, counts.disagreements) == (2, 1)
    assert [(r.source, r.images, r.current, r.classes) for r in counts.readers] == [
        ("anna", 4, 2, {"0": 2, "1": 2}),
        ("ben", 2, 2, {"1": 2}),
    ]


def test_a_second_opinion_may_stand_beside(site, tmp_path) -> None:
    table = label_table(tmp_path / "second.csv", ["ACC000000,1,ben,1", "ACC000001,1,ben,1"])
    assert add_labels(site, table, keep_current=True).current == 0
    assert said(site)[0] == (0, "anna", "1")


def test_labels_of_an_archive_outlive_a_repeated_ingestion(site, tmp_path) -> None:
    add_labels(site, label_table(tmp_path / "second.csv", ["ACC000000,1,ben,1"]))
    before = said(site)
    ingest(site, tmp_path / "in", label_table(tmp_path / "first.csv", FIRST), workers=1)
    assert said(site) == before
    with Index(site.index) as index:
        assert sum(len(history) for history in index.labels().values()) == 5


def test_a_contradiction_is_refused_by_its_line_and_changes_nothing(site, tmp_path) -> None:
    before = said(site)
    with pytest.raises(LabelError, match="line 3: it contradicts"):
        add_labels(site, label_table(tmp_path / "x.csv", ["ACC000000,1,ben,1", "ACC000001,0,anna,1"]))
    assert said(site) == before
    ids = label_table(tmp_path / "splits.csv", ["ACC000000,1,b,2,test", "ACC000001,1,b,2,"], HEAD_SPLIT)
    add_labels(site, ids)
    with Index(site.index) as index:
        assert sorted(row.split for row in index.images()) == ["", "", "", "test"]
    add_labels(site, label_table(tmp_path / "third.csv", ["ACC000000,0,cleo,1"]))
    with Index(site.index) as index:
        assert sorted(row.split for row in index.images()) == ["", "", "", "test"], "no column, no change"


HEAD_SPLIT = "accession,label,source,version,split"


def test_labels_wait_for_images_and_for_later_ones_of_their_study(site, tmp_path) -> None:
    table = label_table(tmp_path / "w.csv", ["ACC000007,1,ben,1", "ACC000008,0,ben,1", "ACC000000,1,ben,1"])
    assert add_labels(site, table).waiting == 2
    assert b"ACC000007" not in site.index.read_bytes()
    ingest(site, export(tmp_path / "later", 1, start=7), None, workers=1)
    with Index(site.index) as index:
        labels = [row.label for row in index.images()]
        assert len(index.waiting()) == 1
    assert sorted(map(str, labels)) == ["0", "1", "1", "1", "1"]
    late = image(7)
    late.SOPInstanceUID += ".2"
    late.PixelData = image(70).PixelData
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "late.dcm").write_bytes(to_bytes(late))
    ingest(site, tmp_path / "late", None, workers=1)
    with Index(site.index) as index:
        assert sum(row.label_source == "ben" for row in index.images()) == 3, "the study's label, also for it"


def test_the_label_of_a_refused_image_comes_with_its_release(tmp_path) -> None:
    site, folder = new_site(tmp_path / "site"), export(tmp_path / "in", 2)
    (folder / "burned.dcm").write_bytes(to_bytes(image(5, BurnedInAnnotation="YES")))
    lines = ["ACC000000,0,anna,1", "ACC000001,1,anna,1", "ACC000005,1,anna,1"]
    report = ingest(site, folder, label_table(tmp_path / "l.csv", lines), workers=1)
    assert report.labels_without_image == 1
    (waiting,) = [one for one in Quarantine.of(site).refusals() if one.code == "review-burned-in"]
    assert release(site, waiting.id, (), Reason("harmless", "ticket-1")).code == "accepted"
    with Index(site.index) as index:
        assert sorted(row.label for row in index.images()) == [0, 1, 1]
        assert index.waiting() == []


def test_a_withdrawal_takes_every_label_along(site, tmp_path) -> None:
    folder = tmp_path / "refused"
    folder.mkdir()
    burned = image(0, BurnedInAnnotation="YES")
    burned.SOPInstanceUID += ".9"
    burned.AccessionNumber = "ACC000077"
    (folder / "burned.dcm").write_bytes(to_bytes(burned))
    lines = ["ACC000077,1,ben,1", "ACC000000,1,ben,1", "ACC000001,0,ben,1"]
    ingest(site, folder, label_table(tmp_path / "more.csv", lines), workers=1)
    with Index(site.index) as index:
        assert len(index.waiting()) == 1
    withdraw_patient(site, image(0).PatientID)
    with Index(site.index) as index:
        patient = Pseudonyms.of(site).patient(Identity(image(0).PatientID))
        assert index.waiting() == []
        assert len(index.labels()) == 3
        left = index._all("SELECT COUNT(*) FROM labels_waiting WHERE patient = ?", (patient,))
        assert left == [(0,)]
        assert index._all("SELECT COUNT(*) FROM labels") == [(4,)]


def test_a_table_that_would_put_a_patient_in_two_splits_is_refused(site, tmp_path) -> None:
    two = image(0)
    two.SOPInstanceUID += ".2"
    two.AccessionNumber, two.PixelData = "ACC000050", image(50).PixelData
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "x.dcm").write_bytes(to_bytes(two))
    ingest(site, tmp_path / "two", None, workers=1)
    lines = ["ACC000000,1,b,1,test", "ACC000050,1,b,1,train"]
    with pytest.raises(DataError, match="two splits"):
        add_labels(site, label_table(tmp_path / "t.csv", lines, HEAD_SPLIT))


def test_a_label_that_waited_puts_no_patient_in_two_splits_either(site, tmp_path) -> None:
    """Whose the second order is shows only when its image comes; then nothing of the folder is taken in."""
    lines = ["ACC000000,1,b,1,test", "ACC000070,1,b,1,train"]
    assert add_labels(site, label_table(tmp_path / "t.csv", lines, HEAD_SPLIT)).waiting == 1
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "x.dcm").write_bytes(to_bytes(image(70, image(0).PatientID)))
    before = state_of(site)
    with pytest.raises(DataError, match="two splits"):
        ingest(site, tmp_path / "late", None, workers=1)
    assert state_of(site).keys() == before.keys()
    with Index(site.index) as index:
        assert len(index.images()) == 4
        assert len(index.waiting()) == 1


def test_the_commands_say_what_became_of_a_table(site, tmp_path) -> None:
    run = CliRunner().invoke
    table = label_table(tmp_path / "second.csv", ["ACC000000,1,ben,1", "ACC000066,1,ben,1"])
    folder = ["--site", str(site.folder)]
    added = run(app, ["labels", "add", str(table), "--keep-current", "--json", *folder])
    assert added.exit_code == 0, added.output
    assert json.loads(added.output)["waiting"] == 1
    shown = json.loads(run(app, ["labels", "show", "--json", *folder]).output)
    assert (shown["waiting"], shown["disagreements"], shown["labelled"]) == (1, 1, 4)
    assert "ACC" not in added.output + json.dumps(shown)
    wrong = run(app, ["labels", "add", str(tmp_path / "none.csv"), *folder])
    assert wrong.exit_code != 0
