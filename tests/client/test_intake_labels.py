"""A label table is read whole and every mistake is named with its line, never with what stands in it."""

from __future__ import annotations

import pytest

from client.intake.labels import read_labels
from common.errors import LabelError
from tests.client.intake_files import label_table

GOOD = ["Geheim7,1,reader,2", "B2,0,reader,2"]


def test_a_good_table_is_read(tmp_path):
    table = read_labels(label_table(tmp_path / "labels.csv", GOOD))
    assert table.kind == "accession"
    assert [(r.line, r.label, r.source, r.version) for r in table.rows.values()] == [
        (2, 1, "reader", "2"),
        (3, 0, "reader", "2"),
    ]


def test_source_and_version_are_words_of_one_form(tmp_path):
    lines = ["A1,1,Reader  2,V1", "B2,0, READER 2 ,v1", "C3,0,Dr.Anna_K,2024-05"]
    table = read_labels(label_table(tmp_path / "labels.csv", lines))
    said = [(r.source, r.version) for r in table.rows.values()]
    assert said == [("reader-2", "v1"), ("reader-2", "v1"), ("dr.anna_k", "2024-05")]


def test_a_column_filled_patient_by_patient_is_no_source(tmp_path):
    """Thirty-three names in the column are patients, thirty-two may be readers."""
    for column, form in (("source", "A{0},1,kowalski{0},1"), ("version", "A{0},1,reader,{0}")):
        lines = [form.format(n) for n in range(33)]
        assert len(read_labels(label_table(tmp_path / "few.csv", lines[:32])).rows) == 32
        with pytest.raises(LabelError, match=column) as caught:
            read_labels(label_table(tmp_path / "labels.csv", lines))
        assert "kowalski" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "line", "rule"),
    [
        ([*GOOD, "Geheim7,1,reader,2"], 4, "repeats line 2"),
        ([*GOOD, "Geheim7,0,reader,2"], 4, "contradicts line 2"),
        (["Geheim7,,reader,2"], 2, "label is empty"),
        (["Geheim7,  ,reader,2"], 2, "label is empty"),
        ([*GOOD, "Geheim7x,pneumonia,reader,2"], 4, "a label is a number"),
        (["Geheim7,nan,reader,2"], 2, "a label is a number"),
        (["Geheim7,inf,reader,2"], 2, "a label is a number"),
        ([",1,reader,2"], 2, "accession is empty"),
        (["Geheim7,1,,2"], 2, "source and version"),
        (["Geheim7,1,reader,geheim"], 2, "a version is a number"),
        (["Geheim7,1,reader,2 of Geheim"], 2, "a version is"),
        (["Geheim7,1,for Geheim7 and her sister,2"], 2, "a source is one word"),
        (["Geheim7,1,Geheim^7,2"], 2, "a source is one word"),
        (["Geheim7,1,reader"], 2, "fields"),
        (["Geheim7,1,reader,2,x"], 2, "fields"),
        (['Geheim7,"1,reader,2'], 2, "not valid CSV"),
    ],
)
def test_each_mistake_is_named_with_its_line(tmp_path, lines, line, rule):
    with pytest.raises(LabelError, match=rule) as caught:
        read_labels(label_table(tmp_path / "labels.csv", lines))
    assert f"labels.csv line {line}" in str(caught.value)
    assert "Geheim" not in str(caught.value)
    assert caught.value.remedy
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        ("accession,study,label,source,version", "exactly one of the columns"),
        ("patient,label,source,version", "exactly one of the columns"),
        ("accession,source,version", "label is missing"),
        ("accession,label", "source, version is missing"),
        ("accession,label,label,source,version", "named twice"),
    ],
)
def test_a_wrong_head_line_is_named(tmp_path, head, rule):
    with pytest.raises(LabelError, match=rule):
        read_labels(label_table(tmp_path / "labels.csv", ["x"], head))


def test_a_wrong_split_is_named(tmp_path):
    head = "accession,label,source,version,split"
    with pytest.raises(LabelError, match="split is one of"):
        read_labels(label_table(tmp_path / "labels.csv", ["A,1,r,1,external"], head))


def test_missing_empty_and_unreadable_tables_are_refused(tmp_path):
    with pytest.raises(LabelError, match="not there"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(LabelError, match="holds no labels"):
        read_labels(label_table(tmp_path / "labels.csv", []))
    (tmp_path / "latin.csv").write_bytes(
        "accession,label,source,version\nM\u00fcller,1,r,1\n".encode("latin-1")
    )
    with pytest.raises(LabelError, match="not UTF-8"):
        read_labels(tmp_path / "latin.csv")
    with pytest.raises(LabelError):
        read_labels(tmp_path)


def test_several_labels_of_one_image_have_one_number_each(tmp_path):
    table = read_labels(label_table(tmp_path / "labels.csv", ["A,0;1;1,r,1", "B,1;0;0,r,1"]))
    assert table.rows["A"].label == (0.0, 1.0, 1.0)
    with pytest.raises(LabelError, match="as many numbers"):
        read_labels(label_table(tmp_path / "labels.csv", ["A,0;1;1,r,1", "B,1;0,r,1"]))


def test_a_table_of_pictures_needs_no_source_and_knows_the_patient(tmp_path):
    table = read_labels(
        label_table(
            tmp_path / "l.csv", ["a/x.png,1,p7,1-5,val", r"a\y.png,0,,,"], "path,label,patient_id,age,split"
        )
    )
    assert table.rows["a/x.png"].split == "validation"
    assert table.rows["a/x.png"].person.patient_id == "p7"
    assert table.rows["a/y.png"].person.patient_id == "y"


def test_a_spreadsheet_with_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbfaccession,label,source,version\r\nA,1,r,1\r\nB,0,r,1\r\n")
    assert len(read_labels(path).rows) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("accession;label;source;version\nA;1;r;1\n", "divided by commas"),
        ("accession\tlabel\tsource\tversion\nA\t1\tr\t1\n", "divided by commas"),
        ("order,label,source,version\nA,1,r,1\n", "Name that column in the first line"),
        ("accession,study,label,source,version\nA,B,1,r,1\n", "Keep one of them"),
    ],
)
def test_a_table_of_another_make_is_told_what_is_wrong_with_it(tmp_path, text, said):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(LabelError, match=said):
        read_labels(path)


def test_a_folder_is_no_table_and_the_first_line_may_shout(tmp_path):
    with pytest.raises(LabelError, match="it is a folder"):
        read_labels(tmp_path)
    path = tmp_path / "labels.csv"
    path.write_text("Accession, LABEL ,Source,Version\nA,1,r,1\n")
    assert read_labels(path).rows["A"].label == 1
