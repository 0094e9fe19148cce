"""A plan is read whole or refused whole, with every mistake at once."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PlanError
from common.plan import Plan, as_dict, dump_plan, load_plan, parse_plan, plan_from_dict, replace

GOOD = """
[study]
name = "opacities"
question = "Does this chest X-ray show an opacity?"

[task]
kind = "binary"
classes = ["opacity"]

[input]
modalities = ["DX", "CR"]
shape = [96, 96]

[labels]
source = "csv"
provenance = "radiologist's report, read by two people"

[model]
name = "small-cnn"
"""


def mistakes(text: str) -> dict[str, str]:
    """Place to rule-and-remedy of every mistake found."""
    with pytest.raises(PlanError) as caught:
        parse_plan(text)
    return {problem.where: f"{problem.rule}. {problem.remedy}" for problem in caught.value.problems}


def test_a_good_plan_survives_the_way_to_text_and_back() -> None:
    plan = parse_plan(GOOD)
    assert parse_plan(dump_plan(plan)) == plan


def test_the_digest_is_the_same_for_the_same_plan_however_it_is_written() -> None:
    spelled_out = GOOD + '\n[privacy]\nmode = "none"\n'
    assert parse_plan(GOOD).digest == parse_plan(spelled_out).digest


def test_the_digest_names_its_algorithm() -> None:
    algorithm, _, digits = parse_plan(GOOD).digest.partition(":")
    assert algorithm == "sha256"
    assert len(bytes.fromhex(digits)) == 32


@given(st.floats(min_value=0.01, max_value=50), st.integers(1, 64), st.integers(0, 2**31))
def test_any_change_of_a_value_changes_the_digest_and_nothing_else_does(
    epsilon: float, batch: int, seed: int
) -> None:
    plan = parse_plan(GOOD)
    changed = replace(
        plan,
        privacy={"mode": "patient-dp", "epsilon": epsilon},
        training={"batch_patients": batch, "seed": seed},
    )
    assert changed.digest != plan.digest
    assert plan_from_dict(as_dict(changed)).digest == changed.digest
    assert parse_plan(dump_plan(changed)) == changed


def test_every_mistake_is_reported_at_once() -> None:
    text = GOOD.replace('"small-cnn"', '"huge-cnn"').replace("[96, 96]", "[96]")
    found = mistakes(text + '\n[privacy]\nmode = "patient-dp"\nepsilon = -1.0\n\n[trainnig]\nseed = 1\n')
    assert {"model.name", "input.shape", "privacy.epsilon", "trainnig"} <= set(found)


def test_a_mistake_of_one_section_hides_none_that_lies_between_keys_or_sections() -> None:
    text = GOOD.replace('["opacity"]', '["a", "a"]').replace("[96, 96]", "[8, 96, 96]")
    text = text.replace('question = "Does this chest X-ray show an opacity?"', "")
    found = mistakes(text + "\n[privacy]\nepsilon = -1\n\n[federation]\nrounds = 0\nproximal_mu = 1.0\n")
    assert set(found) == {
        "study.question",
        "task.classes",
        "input.shape",
        "privacy.epsilon",
        "federation.rounds",
        "federation",
    }


def test_no_mistake_is_the_echo_of_another() -> None:
    text = GOOD.replace('"binary"', '"binarry"').replace("[96, 96]", "[99999, 96]")
    found = mistakes(text + '\n[federation]\nstrategy = "fedprx"\nproximal_mu = 0.1\n')
    assert set(found) == {"task.kind", "input.shape.0", "federation.strategy"}


def test_an_option_of_a_wrong_kind_is_one_mistake() -> None:
    assert list(mistakes(GOOD + "\n[model.options]\nwidth = nan\n")) == ["model.options.width"]


@given(
    st.dictionaries(
        st.sampled_from(["study", "task", "input", "labels", "model", "training", "federation", "zzz"]),
        st.one_of(
            st.integers(),
            st.dictionaries(
                st.sampled_from(["name", "kind", "shape", "options", "seed", "rounds", "augmentation", "q"]),
                st.one_of(st.integers(-1, 1), st.just("x"), st.just([1, "x"]), st.just({"a": {"b": []}})),
            ),
        ),
    )
)
def test_whatever_stands_in_a_plan_it_is_read_to_an_end(sections: dict[str, object]) -> None:
    raw = as_dict(parse_plan(GOOD)) | sections
    before = copy.deepcopy(raw)
    places: list[str] = []
    try:
        plan_from_dict(raw)
    except PlanError as error:
        places = [problem.where for problem in error.problems] or ["none named"]
    assert len(places) == len(set(places))
    assert "none named" not in places
    assert raw == before


@pytest.mark.parametrize(
    ("addition", "where", "word"),
    [
        ('[federation]\nrounds = "10"', "federation.rounds", "integer"),
        ("[federation]\nrounds = true", "federation.rounds", "integer"),
        ("[training]\nseed = -1", "training.seed", "greater than or equal to 0"),
        ("[data]\nsplit_seed = -1", "data.split_seed", "greater than or equal to 0"),
        ('[evaluation]\ngroups = ["sex", "sex"]', "evaluation.groups", "twice"),
        ("[privacy]\nepsilon = -1.0", "privacy.epsilon", "greater than 0"),
        ("[privacy]\nepsilon = nan", "privacy.epsilon", "finite"),
        ("[privacy]\nepsilon = inf", "privacy.epsilon", ""),
        ("[privacy]\ndelta = 0.5", "privacy.delta", "less than 0.01"),
        ("[privacy]\nclip = 0.0", "privacy.clip", "greater than 0"),
        ("[privacy]\nsampling_rate = 1.5", "privacy.sampling_rate", "less than or equal to 1"),
        ("[training]\nlearing_rate = 0.1", "training.learing_rate", "no such key"),
        ("[training]\nbatch_patients = 0", "training.batch_patients", "greater than or equal to 1"),
        ("[federation]\nrounds = 1.5", "federation.rounds", ""),
        ('[federation]\nstrategy = "fedprox"', "federation", "proximal_mu"),
        ('[federation]\nsites = ["a", "a"]', "federation", "named twice"),
        ('[federation]\nsites = ["a"]\nleast_sites = 2', "federation", "larger than the number of sites"),
        ("[data]\ntest_fraction = 0.8\nvalidation_fraction = 0.15", "data", "leave a tenth"),
        ('[evaluation]\ngroups = ["name"]', "evaluation.groups.0", "manufacturer"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(addition: str, where: str, word: str) -> None:
    found = mistakes(f"{GOOD}\n{addition}\n")
    assert where in found
    assert word in found[where]


@pytest.mark.parametrize(
    ("old", "new", "where", "word"),
    [
        ('"small-cnn"', '"resnet9000"', "model.name", "densenet121"),
        ('kind = "binary"', 'kind = "segmentation"', "task.kind", "not trained yet"),
        ('kind = "binary"', 'kind = "multiclass"', "task.classes", "two classes"),
        ('["opacity"]', '["opacity", "effusion"]', "task.classes", "exactly one"),
        ("shape = [96, 96]", "shape = [8, 96, 96]", "input.shape", "not trained on yet"),
        ("shape = [96, 96]", "shape = [40000, 96]", "input.shape.0", "less than or equal to 4096"),
        ('["opacity"]', '[""]', "task.classes.0", "at least 1 character"),
        ("shape = [96, 96]", 'shape = [96, 96]\nnormalisation = "window"', "input", "window"),
        ('question = "Does this chest X-ray show an opacity?"', "", "study.question", "required"),
    ],
)
def test_a_wrong_choice_is_named_with_what_is_allowed(old: str, new: str, where: str, word: str) -> None:
    found = mistakes(GOOD.replace(old, new))
    assert where in found
    assert word in found[where]


def test_a_missing_section_is_named() -> None:
    assert "model" in mistakes(GOOD.replace('[model]\nname = "small-cnn"', ""))


def test_a_file_that_is_not_toml_says_where() -> None:
    found = mistakes("[study\nname=")
    assert any("line 1" in where for where in found)


def test_a_plan_file_that_is_not_there_is_an_input_error(tmp_path) -> None:
    with pytest.raises(PlanError, match=r"plan\.toml") as caught:
        load_plan(tmp_path / "plan.toml")
    assert caught.value.exit_status == 2


def test_a_whole_vit_under_noise_is_refused_with_the_reason() -> None:
    text = GOOD.replace('"small-cnn"', '"vit"') + '\n[privacy]\nmode = "patient-dp"\n'
    assert "learns nothing" in mistakes(text)["model.trainable"]


def test_a_long_wrong_value_is_not_echoed_whole() -> None:
    text = GOOD.replace('"small-cnn"', '"' + "x" * 500 + '"')
    assert "x" * 100 not in mistakes(text)["model.name"]


def test_replace_validates_anew() -> None:
    plan: Plan = parse_plan(GOOD)
    with pytest.raises(PlanError):
        replace(plan, privacy={"epsilon": -1})
