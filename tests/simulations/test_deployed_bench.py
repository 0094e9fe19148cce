"""The figures of a federation of real processes: limits, and the machinery with a small model."""

from __future__ import annotations

import pytest

from simulations.benchmarks.alone import peak
from simulations.benchmarks.bits import weighed
from simulations.benchmarks.deployed import (
    MODELS_LIMIT,
    Study,
    gaps,
    memory_table,
    overhead_table,
    study,
)
from simulations.benchmarks.watch import Peak


def test_what_is_above_idle_is_counted_in_models():
    peak, idle = Peak(540.0, 300.0), Peak(140.0, 100.0)
    found = Study(3, 52_428_800, (5.0, 4.0, 9.0), 1.5, peak, peak, idle, 900.0)
    assert found.models == 2.0
    assert found.own_models == 1.0
    assert found.overhead_s == 3.5
    assert memory_table([found]).row_count == overhead_table(found).row_count == 1


@pytest.mark.slow
def test_a_study_of_real_processes_keeps_to_the_limit():
    """Three hospitals and 30 MB, which is what the limit was set for."""
    found = study(3, 7_500_000, 1)
    assert len(found.rounds) == 1
    assert 0 < found.models <= MODELS_LIMIT


def test_a_round_lasts_from_the_end_of_the_one_before():
    """Its model on disk, whoever came late and the server's own work are in it, not in between."""
    said = [("run.started", 0), ("survey.completed", 2), ("update.admitted", 5), ("round.completed", 6)]
    said += [("survey.joined", 7), ("round.completed", 9.5), ("run.ended", 20)]
    events = [{"event": event, "time": f"2026-01-01T00:00:{at:06.3f}+00:00"} for event, at in said]
    assert gaps(events) == (4.0, 3.5)


def test_an_update_at_8_bits_weighs_no_more_than_three_tenths():
    found = {w.bits: w.share for w in weighed(100_000)}
    assert found[32] == 1.0
    assert found[16] < 0.51
    assert found[8] <= 0.3


def test_a_server_holds_no_more_of_a_model_the_more_hospitals_there_are():
    """Real rounds over the real grid in a process of their own, looked at from outside; a model is 16 MiB here.

    What the allocator keeps differs by up to a model from one run to the next; six more hospitals whose updates were
    held would be six models.
    """
    few, many = (peak(sites, 1 << 22, 1) for sites in (2, 8))
    assert many.total - few.total < 2 * 16
