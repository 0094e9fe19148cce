"""119 real files of 27 kinds: every one is accounted for, and nothing readable is lost but by a listed reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from client.deid.makers import CODED
from client.deid.settings import DeidSettings
from client.index import Index
from client.intake.ingest import ingest
from client.intake.parse import quiet
from client.intake.summary import as_markdown, table
from tests.client.intake_files import new_site
from tests.data import shared_data

POLICY = {
    "patient-unknown": "names no patient: privacy per patient could not be kept",
    "quality-duplicate": "the same pixels of the same patient, in another compression",
    "head-ct": "a face can be rebuilt from it",
    "review-derived": "does not say that it is original and primary",
    "review-text": "something in it looks like text",
}
"""The only reasons for which a readable CR, CT or MR image may stay out here."""
OPEN = DeidSettings(head_ct="accept", derived_primary=("CR", "CT", "MR"))
"""A hospital that lets in what others refuse."""
PAGE = Path(__file__).parents[2] / "docs" / "intake-multivendor.md"


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory):
    folder = shared_data("dicom_multivendor")
    site = new_site(tmp_path_factory.mktemp("multivendor") / "site")
    return site, folder, ingest(site, folder, None, workers=2)


def readable(folder: Path) -> int:
    """CR, CT and MR files that pydicom's own decoders read."""
    count = 0
    for path in folder.glob("*.dcm"):
        with quiet():
            ds = dcmread(path)
            if ds.Modality in ("CR", "CT", "MR"):
                try:
                    count += ds.pixel_array.size > 0
                except (RuntimeError, NotImplementedError):
                    continue
    return count


def test_every_file_is_accounted_for(taken_in):
    _, folder, report = taken_in
    assert len(list(folder.glob("*.dcm"))) == 119
    assert report.received == len([p for p in folder.iterdir() if p.is_file()])
    assert report.received == report.accepted + sum(report.refused.values())
    assert sum(sum(counts.values()) for counts in report.by_modality.values()) == report.received


def test_every_readable_image_is_taken_in_save_for_listed_reasons(taken_in):
    _, folder, report = taken_in
    images = {
        code: {m: n for m, n in by.items() if m in ("CR", "CT", "MR")}
        for code, by in report.by_modality.items()
    }
    refused = {code for code, by in images.items() if by} - {"accepted"}
    assert refused <= POLICY.keys()
    accepted = sum(images["accepted"].values())
    assert accepted + sum(sum(images[code].values()) for code in refused) == 108
    assert readable(folder) <= 108
    assert accepted >= 34
    by_ct = {code: by.get("CT", 0) for code, by in images.items()}
    assert (by_ct["head-ct"], by_ct["accepted"]) == (19, 1)


def test_a_hospital_may_let_in_head_ct_and_derived_images_and_then_little_is_left_out(tmp_path):
    folder = shared_data("dicom_multivendor")
    site = replace(new_site(tmp_path / "site"), deid=OPEN)
    report = ingest(site, folder, None, workers=2)
    assert report.accepted >= 65
    assert "head-ct" not in report.refused
    assert report.by_modality["review-derived"].get("CR", 0) == 0
    assert report.refused["review-derived"] == 13  # SECONDARY: made by a workstation


def test_what_is_kept_equals_the_reference_decoder_pixel_by_pixel(taken_in):
    site, folder, _ = taken_in
    with quiet():
        sources = [dcmread(path) for path in folder.glob("*UIH*.dcm")]
        wanted = sorted(ds.pixel_array.tobytes() for ds in sources)
        with Index(site.index) as index:
            rows = [row for row in index.images() if row.manufacturer == "United Imaging"]
        assert sorted(dcmread(site.dicom / row.file).pixel_array.tobytes() for row in rows) == wanted


def test_real_makers_and_models_are_on_the_list(taken_in):
    site, _, _ = taken_in
    with Index(site.index) as index:
        makers = {(row.manufacturer, row.model) for row in index.images()}
    coded = [pair for pair in makers if any(CODED.fullmatch(word) for word in pair)]
    assert len(makers) >= 6
    assert coded == []


def test_the_table_in_the_documents_is_this_one(taken_in):
    _, _, report = taken_in
    dicom_only = as_markdown(table(report))
    assert dicom_only in PAGE.read_text(encoding="utf-8")
