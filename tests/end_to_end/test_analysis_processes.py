"""An analysis between real processes on loopback: SuperLink, ServerApp, nodes, couriers and services, enrolled hospitals.

Once without TLS, for the exact sum; once as a consortium would, by the commands that its people type, through nginx and stunnel.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from client.analytics.count import counted, patients_of
from common.analytics import schema_of
from common.audit import read, verify
from common.cells import coarse, exact_tables
from common.plan import dump_plan
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
    assert found.summed.sites == SITES
    assert found.summed.tables == _together(plan, counts)
    assert found.own == ()


@pytest.mark.slow
def test_a_consortium_surveys_its_hospitals_by_command_over_tls(tmp_path):
    """Release, approve, survey, read: every word of it typed, every byte through the edge and the tunnels."""
    plan = survey_plan(SITES[:3], input={"modalities": ["DX"]})
    (tmp_path / "survey.toml").write_text(dump_plan(plan))
    with federation(tmp_path / "all", dict.fromkeys(SITES[:3], 100), secured=True) as made:

        def typed(room: str, *words: object, answer: str = "") -> str:
            """What a command says that runs the same code as the federation."""
            command = [sys.executable, "-m", f"{room}.cli", *map(str, words)]
            done = subprocess.run(
                command, capture_output=True, text=True, input=answer, env=made.environment, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        for seed, name in enumerate(SITES[:3]):
            add(made.sites[name], population(seed, 120))
        here = (tmp_path / "survey.toml", "--folder", made.consortium.folder)
        release = json.loads(typed("server", "release", *here, "--json"))["id"]
        for site in made.sites.values():
            assert release in typed("client", "studies", "--site", site.folder), "fetched through the edge"
            said = typed("client", "approve", release, "--site", site.folder, answer="y\n")
            assert "analysis" in said.lower(), "who approves is told that nothing is trained"
        study = json.loads(typed("server", "survey", *here, "--json"))["name"]
        made.until(lambda: made.state(study).startswith("completed"), "the end of the analysis", _END_S)
        told = json.loads(typed("server", "survey", *here, "--json"))
        counts = [counted(patients_of(site, plan), plan) for site in made.sites.values()]
        for site in made.sites.values():
            left = [one["fields"]["kind"] for one in read(site.audit) if one["event"] == "egress.release"]
            assert set(left) == {"sitemetrics", "keys", "shares", "masked", "consent", "opened"}
        found = read_analysis(made.home(study) / "analysis.json")
        page = (made.home(study) / "survey.html").read_text()
    assert found.summed.sites == SITES[:3]
    assert found.summed.tables == _together(plan, counts)
    assert (found.own, found.refused, found.simulated) == ((), {}, False)
    assert told["record"]["run"] == found.run
    assert told["page"].endswith("survey.html")
    assert all(name in page for name in SITES[:3])


def _together(plan, counts):
    """What hospitals with these counts have, by the rules for what is written down of a sum."""
    together = coarse(exact_tables(schema_of(plan), np.sum(counts, axis=0)), 11, 11)
    return {one.axis: one.cells for one in together}
