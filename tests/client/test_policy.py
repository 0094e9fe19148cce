"""What a hospital allows: every plan that passes satisfies every floor and ceiling, and data is not touched before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.policy import Policy, check, check_asked
from client.privacy.plan import DpPlan
from client.service import SiteService
from client.site import init_site
from common import accounting
from common import plan as plans
from common.code import code_digest
from common.codes import REFUSALS
from common.errors import PolicyRefused
from common.messages import Instruction, Kind, Refusal
from common.models import architecture_digest, build
from tests.client.made import made_plan

SHAPE = (64, 64)
PRIVATE = made_plan(privacy={"mode": "patient-dp"}, input={"shape": list(SHAPE)})
OPEN = made_plan(input={"shape": list(SHAPE)})
CNN = architecture_digest(build(OPEN.model, 1, SHAPE))


def _code(policy, plan, ask=check):
    with pytest.raises(PolicyRefused) as caught:
        ask(policy, plan)
    assert caught.value.code in REFUSALS
    return caught.value.code


@pytest.mark.parametrize(
    ("policy", "plan", "code"),
    [
        (Policy(), OPEN, "policy-non-private"),
        (Policy(max_epsilon_per_run=7.9), PRIVATE, "policy-epsilon"),
        (Policy(max_delta=1e-6), PRIVATE, "policy-delta"),
        (Policy(max_clip=0.5), PRIVATE, "policy-clip"),
        (Policy(max_sampling_rate=0.2), PRIVATE, "policy-sampling-rate"),
        (Policy(min_noise_multiplier=1.3), PRIVATE, "policy-noise"),
        (Policy(trainable=("head",)), PRIVATE, "policy-trainable"),
        (Policy(networks=("scatter",)), PRIVATE, "policy-network"),
        (Policy(architectures=("sha256:" + "0" * 64,)), PRIVATE, "policy-architecture"),
        (Policy(plans=("sha256:" + "0" * 64,)), PRIVATE, "policy-plan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_rule_refuses_by_its_own_name(policy, plan, code):
    assert _code(policy, plan) == code


def test_an_architecture_is_its_network_with_options_and_trainable_part():
    listed = Policy(architectures=(CNN,))
    check(listed, PRIVATE)
    for change in ({"options": {"width": 4, "groups": 2}}, {"name": "scatter"}, {"trainable": "head"}):
        assert _code(listed, plans.replace(PRIVATE, model=change), check_asked) == "policy-architecture"


def test_the_noise_floor_is_the_noise_that_is_drawn():
    sigma = DpPlan.from_plan(PRIVATE, 20).noise_multiplier
    check(Policy(min_noise_multiplier=sigma), PRIVATE)
    assert _code(Policy(min_noise_multiplier=sigma + 0.001), PRIVATE) == "policy-noise"


policies = st.builds(
    Policy,
    allow_non_private=st.booleans(),
    max_epsilon_per_run=st.sampled_from((1.0, 3.0, 8.0)),
    max_delta=st.sampled_from((1e-6, 1e-5, 1e-4)),
    max_clip=st.sampled_from((0.5, 1.0, 2.0)),
    min_noise_multiplier=st.sampled_from((0.0, 0.6, 1.0, 2.0)),
    max_sampling_rate=st.sampled_from((0.1, 0.25, 1.0)),
    networks=st.sampled_from(((), ("small-cnn",), ("scatter",))),
    trainable=st.sampled_from(((), ("head",), ("all", "head"))),
    architectures=st.sampled_from(((), (CNN,), ("sha256:" + "0" * 64,))),
    plans=st.sampled_from(((), (PRIVATE.digest,), (OPEN.digest,))),
)
asked = st.builds(
    lambda model, part, privacy: plans.replace(
        OPEN, model={"name": model, "trainable": part}, privacy=privacy
    ),
    st.sampled_from(("small-cnn", "scatter")),
    st.sampled_from(("all", "head")),
    st.fixed_dictionaries(
        {
            "mode": st.sampled_from(("none", "patient-dp")),
            "epsilon": st.sampled_from((1.0, 8.0, 20.0)),
            "delta": st.sampled_from((1e-6, 1e-5, 1e-3)),
            "clip": st.sampled_from((0.5, 1.0, 5.0)),
            "sampling_rate": st.sampled_from((0.1, 0.5)),
        }
    ),
)


@settings(max_examples=60, deadline=None)
@given(policy=policies, plan=asked)
def test_whatever_passes_satisfies_every_floor_and_ceiling(policy, plan):
    """The server can only tighten: written down here a second time, as a sceptic would read site.toml."""
    try:
        check(policy, plan)
    except PolicyRefused:
        return
    assert not policy.plans or plan.digest in policy.plans
    assert not policy.networks or plan.model.name in policy.networks
    assert not policy.trainable or plan.model.trainable in policy.trainable
    net = build(plan.model, plan.task.outputs, SHAPE)
    assert not policy.architectures or architecture_digest(net) in policy.architectures
    assert plan.private or policy.allow_non_private
    if plan.private:
        privacy = plan.privacy
        assert privacy.epsilon <= policy.max_epsilon_per_run
        assert privacy.delta <= policy.max_delta
        assert privacy.clip <= policy.max_clip
        assert privacy.sampling_rate <= policy.max_sampling_rate
        steps = plan.federation.rounds * privacy.steps_per_round
        sigma = accounting.calibrate(privacy.epsilon, privacy.delta, privacy.sampling_rate, steps)
        assert sigma >= policy.min_noise_multiplier


def _ask(kind, plan):
    return Instruction(kind, "run-1", 1, plans.dump_plan(plan), plan.digest, code_digest(), {})


TRAIN, ALL = (Kind.TRAIN,), (Kind.SURVEY, Kind.TRAIN, Kind.THRESHOLD, Kind.EVALUATE)


@pytest.mark.parametrize(
    ("policy", "plan", "kinds", "code"),
    [
        (Policy(), OPEN, TRAIN, "policy-non-private"),
        (Policy(max_epsilon_per_run=7.9), PRIVATE, TRAIN, "policy-epsilon"),
        (Policy(max_delta=1e-6), PRIVATE, TRAIN, "policy-delta"),
        (Policy(max_clip=0.5), PRIVATE, TRAIN, "policy-clip"),
        (Policy(max_sampling_rate=0.2), PRIVATE, TRAIN, "policy-sampling-rate"),
        (Policy(min_noise_multiplier=1.3), PRIVATE, TRAIN, "policy-noise"),
        (Policy(allow_non_private=True, trainable=("head",)), OPEN, TRAIN, "policy-trainable"),
        (Policy(networks=("scatter",)), OPEN, ALL, "policy-network"),
        (Policy(architectures=("sha256:" + "0" * 64,)), OPEN, ALL, "policy-architecture"),
        (Policy(plans=("sha256:" + "0" * 64,)), OPEN, ALL, "policy-plan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plan_is_judged_before_any_data_is_touched(tmp_path, policy, plan, kinds, code):
    """Nothing of a patient can be read here: index, store and ledger are folders, and reading one would fail."""
    site = init_site(tmp_path / "alpha", "alpha", simulation_seed=1, policy=policy)
    for path in (site.index, site.ledger):
        path.mkdir()
    site.store.write_text("no folder")
    for kind in kinds:
        reply = SiteService(site).handle(_ask(kind, plan))
        assert isinstance(reply, Refusal)
        assert (reply.code, reply.run, reply.round) == (code, "run-1", 1)


def test_what_is_allowed_does_reach_the_data(tmp_path):
    """The test above would pass, too, if nothing ever came that far."""
    policy = Policy(allow_non_private=True)
    site = init_site(tmp_path / "alpha", "alpha", simulation_seed=1, policy=policy)
    site.index.mkdir()
    reply = SiteService(site).handle(_ask(Kind.SURVEY, OPEN))
    assert reply.code.startswith("storage")


def test_every_default_is_a_limit_and_none_lets_a_non_private_plan_in():
    defaults = Policy()
    assert not defaults.allow_non_private
    assert not defaults.private_progress
    assert defaults.min_cell == 11
    assert defaults.min_noise_multiplier > 0
    assert _code(replace(defaults, min_patients=1), OPEN) == "policy-non-private"
