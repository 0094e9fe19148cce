"""A whole federation of real services in one process: both apps, real files, no network."""

from __future__ import annotations

import numpy as np

from client.service import SiteService
from common import plan as plans
from common.audit import read, verify
from common.checkpoints import load
from simulations.grid import run_in_process
from tests.client.made import made_plan
from tests.sites import image_site

PLAN = made_plan(federation={"rounds": 2, "least_sites": 2}, evaluation={"min_cell": 1, "bootstrap": 100})


def _services(folder):
    made = [image_site(folder / name, name) for name in ("alpha", "beta")]
    return [SiteService(site) for site in [*made, image_site(folder / "ext", "ext", split="test")]]


def test_hospitals_train_one_model_and_all_test_it(tmp_path):
    steps = []
    record = run_in_process(_services(tmp_path), PLAN, tmp_path / "out", lambda *step: steps.append(step))
    assert record.status == "completed"
    assert (record.trained, record.registered) == (("alpha", "beta"), ("alpha", "beta", "ext"))
    assert not record.subset
    assert {name: m.models[0].model for name, m in record.sites.items()} == dict.fromkeys(
        record.registered, "federated"
    )
    assert [step for step, _ in steps] == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]
    assert all(m.simulated for m in record.sites.values())
    assert verify(tmp_path / "out" / "audit.jsonl").count > 8
    assert verify(tmp_path / "alpha" / "state" / "audit.jsonl").count > 8


def test_what_the_server_got_is_what_each_hospital_wrote_down(tmp_path):
    record = run_in_process(_services(tmp_path), PLAN, tmp_path / "out")
    sent = sum(
        entry["fields"]["bytes"]
        for name in ("alpha", "beta")
        for entry in read(tmp_path / name / "state" / "audit.jsonl")
        if entry["event"] == "egress.release" and entry["fields"]["kind"] == "update"
    )
    assert sum(round_.bytes_up for round_ in record.rounds) == sent


def test_the_same_plan_gives_the_same_model_to_the_bit(tmp_path):
    for run in ("one", "two"):
        run_in_process(_services(tmp_path / run), PLAN, tmp_path / run / "out")
    one, two = (load(tmp_path / run / "out" / "model.safetensors").arrays for run in ("one", "two"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_with_privacy_every_site_reports_what_it_spent_round_by_round(tmp_path):
    plan = plans.replace(PLAN, privacy={"mode": "patient-dp", "epsilon": 4.0})
    record = run_in_process(_services(tmp_path), plan, tmp_path / "out")
    for name in ("alpha", "beta"):
        spent = [round_.sites[name].epsilon for round_ in record.rounds]
        assert spent == sorted(spent)
        assert 0 < spent[0] < spent[-1] <= 4.0
        assert record.sites[name].epsilon == spent[-1]
    assert record.sites["ext"].epsilon is None
    norms = [s.update_norm for r in record.rounds for s in r.sites.values()]
    assert np.isfinite(norms).all()


def test_a_strict_hospital_stays_out_by_its_own_code_and_the_run_says_subset(tmp_path):
    services = _services(tmp_path)
    strict = image_site(tmp_path / "strict", "strict")
    text = (strict.folder / "site.toml").read_text()
    (strict.folder / "site.toml").write_text(
        text.replace("allow_non_private = true", "allow_non_private = false")
    )
    services.append(SiteService(image_site(tmp_path / "strict", "strict")))
    record = run_in_process(services, PLAN, tmp_path / "out")
    assert [r.refused for r in record.rounds] == [{"strict": "policy-non-private"}] * 2
    assert record.subset
    assert "strict" in record.sites
