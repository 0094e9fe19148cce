"""A network is used again only where nothing of a hospital can stay in it; a clip is found again by any process."""

from __future__ import annotations

import numpy as np
import pytest

from client.evaluation import predict
from client.lending import borrow, give_back
from client.privacy.clips import NAME, Clips
from client.training import train
from common import plan as plans
from common.errors import StorageError
from common.models import get_arrays, set_arrays
from tests.client.few_patients import few_patients
from tests.client.made import made_plan

PLAN = made_plan()


def test_a_network_given_back_is_lent_again_and_never_to_two_at_once():
    net = borrow(PLAN)
    give_back(net, PLAN)
    assert borrow(PLAN) is net
    assert borrow(PLAN) is not net


def test_a_new_one_and_a_used_one_give_the_same_bits_after_training_too():
    def bits(net):
        set_arrays(net, weights)
        return predict(net, patients).scores.tobytes()

    patients, new, used = few_patients(side=32), borrow(PLAN), borrow(PLAN)
    weights = {name: value.copy() for name, value in get_arrays(new).items()}
    train(used, patients, PLAN, dp=None, round=1, device="cpu")
    give_back(used, PLAN)
    assert bits(borrow(PLAN)) == bits(new)


def test_what_was_learned_in_it_is_gone_once_weights_are_set():
    net, fresh = borrow(PLAN), borrow(PLAN)
    sent = {name: np.full_like(value, 0.1) for name, value in get_arrays(net).items()}
    for parameter in net.parameters():
        parameter.data.add_(1.0)
        parameter.grad = parameter.data.clone()
    give_back(net, PLAN)
    again = borrow(PLAN)
    for one in (again, fresh):
        set_arrays(one, sent)
    assert all(parameter.grad is None for parameter in again.parameters())
    states = zip(again.state_dict().values(), fresh.state_dict().values(), strict=True)
    assert all(one.equal(two) for one, two in states)


@pytest.mark.parametrize(
    "changes", [{"privacy": {"mode": "patient-dp"}}, {"model": {"name": "small-cnn", "trainable": "head"}}]
)
def test_one_with_frozen_parts_or_under_privacy_is_never_lent_twice(changes):
    plan = plans.replace(PLAN, **changes)
    net = borrow(plan)
    give_back(net, plan)
    assert borrow(plan) is not net


def test_another_plan_gets_another_network():
    net = borrow(PLAN)
    give_back(net, PLAN)
    assert borrow(plans.replace(PLAN, model={"options": {"width": 8}})) is not net
    assert (
        borrow(plans.replace(PLAN, training={"learning_rate": 0.5})) is net
    )  # the same network all the same


def test_a_clip_is_kept_by_run_and_the_oldest_runs_are_forgotten(tmp_path):
    clips = Clips(tmp_path)
    assert clips.of("run-a") is None
    clips.keep("run-a", 0.5)
    assert Clips(tmp_path).of("run-a") == 0.5
    for number in range(20):
        clips.keep(f"run-{number}", float(number))
    assert clips.of("run-a") is None
    assert clips.of("run-19") == 19.0


def test_a_note_of_clips_that_is_none_is_said(tmp_path):
    (tmp_path / NAME).write_text("[1, 2]")
    with pytest.raises(StorageError):
        Clips(tmp_path).of("run-a")
