"""An analysis between real processes on loopback: SuperLink, ServerApp, nodes, couriers and services, enrolled hospitals."""

from __future__ import annotations

import numpy as np
import pytest

from client.analytics.count import counted, patients_of
from common.analytics import schema_of
from common.audit import verify
from common.cells import coarse, exact_tables
from server.analytics.records import read_analysis
from simulations.faults.federation import federation
from tests.counted import add, population, survey_plan

SITES = ("alpha", "beta", "delta", "gamma")
_END_S = 400.0


@pytest.mark.slow
def test_four_hospitals_as_processes_are_counted_and_only_their_sum_is_known(tmp_path):
    plan = survey_plan(SITES, input={"modalities": ["DX"]})
    with federation(tmp_path, dict.fromkeys(SITES, 100), enrolled=True) as made:
        for seed, name in enumerate(SITES):
            add(made.sites[name], population(seed, 120))
        study = made.submit(plan)
        made.until(lambda: made.state(study).startswith("completed"), "the end of the analysis", _END_S)
        found = read_analysis(made.home(study) / "analysis.json")
        counts = [counted(patients_of(site, plan), plan) for site in made.sites.values()]
        for site in made.sites.values():
            assert verify(site.audit).count > 0
    together = coarse(exact_tables(schema_of(plan), np.sum(counts, axis=0)), 11, 11)
    assert found.summed.sites == SITES
    assert found.summed.tables == {one.axis: one.cells for one in together}
    assert found.own == ()
