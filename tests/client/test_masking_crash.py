"""One mask for an update ever, whenever the power fails: every write and sync of a masked round."""

from __future__ import annotations

import pytest

from tests.client import mask_walk


def test_a_power_failure_at_any_write_of_a_masked_round_changes_no_answer_and_gives_no_second_mask(tmp_path):
    """Every write, sync, truncate, creation and delete; `make crash-walk` does three rounds with ten states each."""
    found = mask_walk.walk(tmp_path, last=1, samples=0)
    assert found.points > 60
    assert found.states == 2 * found.points
    assert found.wrong == []


def test_the_walk_catches_a_site_that_does_not_wait_for_the_disk(tmp_path):
    found = mask_walk.walk(tmp_path, "unsynced", last=1, samples=0)
    assert any("'train'" in line for line in found.changed)
    assert found.lawless


def test_the_walk_catches_an_answer_that_leaves_before_it_is_stored(tmp_path):
    found = mask_walk.walk(tmp_path, "sends-first", last=1, samples=0)
    assert any("'train'" in line for line in found.changed)


def test_the_walk_catches_a_site_that_forgets_what_it_masked(tmp_path):
    found = mask_walk.walk(tmp_path, "forgets-masks", last=1, samples=0)
    assert any("forgotten" in line for line in found.lawless)


@pytest.mark.slow
def test_torn_writes_and_two_rounds(tmp_path):
    assert mask_walk.walk(tmp_path, last=2, samples=2).wrong == []
