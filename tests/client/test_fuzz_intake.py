"""Mutated real files: no crash of the parent, no hang, no canary kept or answered, every file an outcome by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from client.intake.ingest import ingest
from tests.client.fuzz_intake import CODES, FAMILIES, LIMITS, fuzz, unsound
from tests.client.fuzz_mutations import (
    CANARY,
    Draft,
    insert_canary,
    mutate,
    overwrite_with_canary,
    shared,
    sources,
)
from tests.client.intake_files import new_site

MUTATIONS = 10_000 if os.environ.get("CI") else 300
"""A hospital was promised ten thousand in every check of a change."""
SEED = 20260101
FILES = sources()
"""Files that are there everywhere, so that a seed means the same everywhere."""


def test_the_laws_hold_for_mutated_files(tmp_path):
    figures = fuzz(range(MUTATIONS), SEED, tmp_path, FILES)
    assert figures.broken == []
    assert figures.total == MUTATIONS
    assert (
        figures.codes["accepted"] > MUTATIONS // 20
    )  # mutations that are all refused at the door try nothing
    assert list(tmp_path.rglob("*.*")) == []


def test_the_laws_hold_when_pixels_are_searched_for_text(tmp_path):
    figures = fuzz(range(MUTATIONS // 50), SEED + 1, tmp_path, FILES, search_text=True)
    assert figures.broken == []


def test_the_laws_hold_for_files_of_many_scanners(tmp_path):
    if not shared().is_dir():
        pytest.skip("the real files of many scanners are not on this machine (set CONSILIUM_TEST_DATA)")
    figures = fuzz(range(MUTATIONS // 20), SEED + 2, tmp_path, sources(shared()))
    assert figures.broken == []


def test_a_whole_ingestion_of_mutated_files_keeps_no_canary(tmp_path):
    """Index, store, quarantine and audit log of a folder of them."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number}.dcm").write_bytes(mutate(SEED + 3, number, FILES)[0])
    site = new_site(tmp_path / "site")
    report = ingest(site, folder, None, workers=1, limits=LIMITS)
    assert report.received == 120
    known = CODES | {"uid-conflict"}  # two mutations of one image: only the index sees both
    assert [code for code in report.refused if code not in known and not code.startswith(FAMILIES)] == []
    for path in (p for p in site.folder.rglob("*") if p.is_file()):
        assert CANARY.casefold().encode() not in path.read_bytes().lower(), path.name
    assert [law for path in site.dicom.rglob("*.dcm") for law in unsound(path.read_bytes())] == []


def test_a_wrong_value_representation_is_the_files_fault_and_none_of_ours(tmp_path):
    """A sequence that says it is a number, and numbers too large for what they say they are; found by fuzzing."""
    figures = fuzz([1453, 4981, 8015], 47, tmp_path, FILES)
    assert figures.codes == {"deid-value": 3}


def test_pixels_that_say_they_are_text_are_the_files_fault(tmp_path):
    """Two files of a hundred thousand; found by fuzzing."""
    figures = fuzz([41959, 78734], 20261122, tmp_path, FILES)
    assert figures.codes == {"pixel-decode": 2}


def test_a_mutation_follows_from_its_seed_and_number():
    """What a failure names can be made again."""
    again = [mutate(SEED, number, sources()) for number in range(5)]
    assert again == [mutate(SEED, number, FILES) for number in range(5)]
    assert len({data for data, _ in again}) == 5


def test_what_is_spared_is_spared_where_it_was_moved_to():
    """Pixels may spell a stranger's word, as docs/deid-acceptance.md says; a mutation must not write one there."""
    file = next(file for file in FILES if file.name == "CT_small.dcm")
    pixels, behind = file.places[-2:]
    grey = file.data[pixels.value : pixels.value + pixels.length]
    draft = Draft(bytearray(file.data), [behind], np.random.default_rng(0), FILES, [grey])
    overwrite_with_canary(draft)
    assert CANARY.encode() in draft.data
    draft.data = bytearray(file.data[:200] + bytes(44) + file.data[200:])
    overwrite_with_canary(draft)
    insert_canary(draft)
    assert grey in draft.data


def test_the_laws_see_what_breaks_them(tmp_path):
    """A kept file with a canary, and one that cannot be walked, are told."""
    file = next(file for file in FILES if file.name == "own name of a file")
    assert Path(__file__).exists()
    assert "the canary was kept" in unsound(file.data + CANARY.encode())
    assert any(law.startswith("our reader") for law in unsound(file.data[:-9]))
