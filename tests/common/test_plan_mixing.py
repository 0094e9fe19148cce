"""Ways to train that mix patients are refused by name, wherever a plan asks for them."""

from __future__ import annotations

import pytest

from common.errors import PlanError
from common.plan import as_dict, plan_from_dict
from tests.toy import toy_plan

ASKED = [
    ("training", "mixup", 0.2),
    ("training", "mixup_alpha", 0.2),
    ("training", "CutMix", True),
    ("training", "smote", True),
    ("training", "weighted_sampler", True),
    ("training", "sampler", "balanced"),
    ("training", "oversampling", 2.0),
    ("training", "contrastive_weight", 0.1),
    ("training", "loss", "sup-con"),
    ("training", "loss", "NT_Xent"),
    ("privacy", "sampler", "shuffle"),
    ("model", "simclr_pretraining", True),
]


@pytest.mark.parametrize("mode", ["none", "patient-dp"])
@pytest.mark.parametrize(("section", "key", "value"), ASKED)
def test_what_mixes_patients_is_refused_by_name(section, key, value, mode):
    raw = as_dict(toy_plan())
    raw["privacy"]["mode"] = mode
    raw[section][key] = value
    with pytest.raises(PlanError) as caught:
        plan_from_dict(raw)
    (problem,) = caught.value.problems
    assert problem.where == f"{section}.{key}"
    assert problem.rule.startswith("dp-mixes-patients: ")


def test_in_the_augmentation_too():
    raw = as_dict(toy_plan())
    raw["training"]["augmentation"]["mixup"] = 0.2
    with pytest.raises(PlanError, match="dp-mixes-patients"):
        plan_from_dict(raw)


def test_any_other_unknown_key_is_only_unknown():
    raw = as_dict(toy_plan())
    raw["training"]["sampling"] = 1
    with pytest.raises(PlanError, match="no such key"):
        plan_from_dict(raw)
