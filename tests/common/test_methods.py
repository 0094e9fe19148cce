"""Every method says where it holds, and a plan that asks for it elsewhere is refused by its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from common.errors import PlanError
from common.methods import METHODS, control_part, methods_of, model_part
from common.plan import Plan
from tests.client.made import made_plan

TABLE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
STEPS = {"training": {"momentum": 0.0, "local_steps": 4}}
ASKS = {
    "fedavg": {},
    "fedprox": {"federation": {"strategy": "fedprox", "proximal_mu": 0.1}},
    "fedadam": {"federation": {"strategy": "fedadam"}},
    "fedyogi": {"federation": {"strategy": "fedyogi"}},
    "scaffold": {"federation": {"strategy": "scaffold"}, **STEPS},
    "q-ffl": {"federation": {"strategy": "q-ffl"}, "method": {"fairness_q": 1.0}},
    "agnostic": {"federation": {"strategy": "agnostic"}, "method": {"group_step": 0.1}},
    "finetune": {"personalisation": {"method": "finetune"}},
    "ditto": {"personalisation": {"method": "ditto", "proximal_mu": 0.1}},
    "local-affine": {"personalisation": {"method": "local-affine"}},
    "calibrate": {"personalisation": {"method": "calibrate"}},
    "histogram": {"input": {"normalisation": "histogram"}},
    "amplitude": {"input": {"normalisation": "amplitude"}},
    "scanner-chain": {"training": {"augmentation": {"scanner": 0.5}}},
}


def _with(name: str, **more: dict[str, object]) -> Plan:
    sections: dict[str, dict[str, object]] = {}
    for changes in (ASKS[name], more):
        for section, keys in changes.items():
            sections[section] = {**sections.get(section, {}), **keys}
    return made_plan(**sections)


@pytest.mark.parametrize("name", METHODS)
def test_each_method_has_its_plan_and_is_found_in_it(name: str) -> None:
    assert name in methods_of(_with(name))


@pytest.mark.parametrize("name", METHODS)
def test_under_privacy_and_masks_a_method_holds_with_a_reason_or_is_refused_by_name_with_one(
    name: str,
) -> None:
    method = METHODS[name]
    for holds, not_so, more in (
        (method.private, method.not_private, {"privacy": {"mode": "patient-dp"}}),
        (method.masked, method.not_masked, {"federation": {"aggregation": "secure", "least_sites": 3}}),
    ):
        assert bool(holds) != bool(not_so)
        if holds:
            assert name in methods_of(_with(name, **more))
            continue
        with pytest.raises(PlanError) as caught:
            _with(name, **more)
        assert f"{name} does not hold" in str(caught.value)
        assert not_so in str(caught.value)


@pytest.mark.parametrize(
    ("name", "more", "word"),
    [
        ("scaffold", {"training": {"local_steps": 0}}, "as many steps"),
        ("scaffold", {"training": {"momentum": 0.5}}, "plain SGD"),
        ("scaffold", {"training": {"optimizer": "adamw"}}, "plain SGD"),
        ("scaffold", {"personalisation": {"method": "local-affine"}}, "local-affine"),
        ("scaffold", {"federation": {"sites_per_round": 2}}, "all sites are asked"),
        ("fedadam", {"federation": {"robust": "median", "least_sites": 3}}, "fedadam needs"),
        ("local-affine", {"model": {"trainable": "head"}}, "trains none"),
        ("local-affine", {"model": {"name": "scatter"}}, "trains none"),
        ("fedavg", {"method": {"fairness_q": 1.0}}, "q-ffl"),
        ("q-ffl", {"method": {"group_step": 1.0}}, "agnostic"),
        (
            "calibrate",
            {"task": {"kind": "multiclass", "classes": ["a", "b"]}},
            "add up to 1",
        ),
    ],
)
def test_what_a_method_does_not_go_with_is_said(
    name: str, more: dict[str, dict[str, object]], word: str
) -> None:
    with pytest.raises(PlanError) as caught:
        _with(name, **more)
    assert word in str(caught.value)


def test_scaffold_takes_the_private_steps_for_its_own_under_privacy() -> None:
    more: dict[str, dict[str, object]] = {
        "privacy": {"mode": "patient-dp"},
        "training": {"local_steps": 0},
    }
    assert _with("scaffold", **more).private


def test_the_table_of_the_document_is_what_the_code_says() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `([^`]+)` \| (.*) \|$", TABLE.read_text("utf-8"), re.MULTILINE)
    told = {name: (key, *rest.split(" | ")) for name, key, rest in rows}
    assert told == {
        name: (
            m.key,
            m.place,
            m.paper,
            f"no: {m.not_private}" if m.not_private else f"yes: {m.private}",
            f"no: {m.not_masked}" if m.not_masked else f"yes: {m.masked}",
            m.sends,
            m.keeps,
        )
        for name, m in METHODS.items()
    }


def test_what_is_sent_beside_the_model_is_told_from_it() -> None:
    sent = {"w": 1, "control.w": 2, "b": 3}
    assert model_part(sent) == {"w": 1, "b": 3}  # type: ignore[arg-type, comparison-overlap]
    assert control_part(sent) == {"w": 2}  # type: ignore[arg-type, comparison-overlap]
