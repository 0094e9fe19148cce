"""What was told of a year's patients stays as it was told, whenever the power fails: every write and sync of the memory of analyses."""

from __future__ import annotations

import pytest

from tests.client import analytics_walk


def test_a_power_failure_at_any_write_changes_no_answer_and_forgets_no_law(tmp_path):
    """Every write, sync, truncate, creation and delete; `make crash-walk` does ten states each."""
    found = analytics_walk.walk(tmp_path, samples=0)
    assert found.points > 100
    assert found.states == 2 * found.points
    assert found.wrong == []


def test_the_walk_catches_a_hospital_that_does_not_wait_for_the_disk(tmp_path):
    found = analytics_walk.walk(tmp_path, "unsynced", samples=0)
    assert found.changed
    assert found.lawless


def test_the_walk_catches_an_answer_that_leaves_before_it_is_stored(tmp_path):
    found = analytics_walk.walk(tmp_path, "answers-first", samples=0)
    assert any("answered otherwise" in line for line in found.changed)
    assert not found.stuck


def test_the_walk_catches_a_list_that_is_signed_before_it_is_stored(tmp_path):
    found = analytics_walk.walk(tmp_path, "signs-first", samples=0)
    assert any("signed and is forgotten" in line for line in found.lawless)
    assert not found.changed


@pytest.mark.slow
def test_torn_writes(tmp_path):
    assert analytics_walk.walk(tmp_path, samples=2).wrong == []
