"""What a site sends is judged before it is used: each rule, by its code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from client.dataset import public_bucket
from common.arrays import largest_value, norm
from common.compression import SCALES, compress
from common.errors import AdmissionRefused
from common.messages import Instruction, Kind, Refusal, SiteMetrics, Update
from server.admission import Admission, Expected, UpdateRules, norm_bound, weight_is_public

PLAN, CODE, OTHER = ("sha256:" + digit * 64 for digit in "123")
RULES = UpdateRules(PLAN, {"w": (2, 3), "b": (3,)}, {"alpha": 150, "beta": 20}, max_norm=10.0)
EXPECTED = Expected("run-1", 2, CODE)


def _arrays(**changes):
    return {"w": np.full((2, 3), 0.5, np.float32), "b": np.ones(3, np.float32), **changes}


def _update(**changes):
    return replace(Update("alpha", "run-1", 2, PLAN, CODE, 150, _arrays()), **changes)


def test_a_good_update_passes_with_its_norm():
    admitted = Admission(EXPECTED).update("alpha", _update(), RULES)
    assert admitted.norm == pytest.approx((6 * 0.25 + 3) ** 0.5)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (_update(site="beta"), "site"),
        (_update(run="run-2"), "run"),
        (_update(round=1), "round"),
        (_update(round=3), "round"),
        (_update(code_digest=OTHER), "code-mismatch"),
        (_update(plan_digest=OTHER), "plan-mismatch"),
        (_update(weight=200), "weight"),
        (_update(weight=0), "weight"),
        (_update(weight=-150), "weight"),
        (_update(arrays={}), "names"),
        (_update(arrays={"w": _arrays()["w"]}), "names"),
        (_update(arrays=_arrays(extra=np.ones(1, np.float32))), "names"),
        (_update(arrays=dict(reversed(_arrays().items()))), "names"),
        (_update(arrays=_arrays(b=np.ones(3, np.float64))), "dtype"),
        (_update(arrays=_arrays(b=np.ones(3, np.int32))), "dtype"),
        (_update(arrays=_arrays(b=np.ones(4, np.float32))), "shape"),
        (_update(arrays=_arrays(w=np.ones((3, 2), np.float32))), "shape"),
        (_update(arrays=_arrays(b=np.array([1, np.nan, 1], np.float32))), "not-finite"),
        (_update(arrays=_arrays(b=np.array([1, -np.inf, 1], np.float32))), "not-finite"),
        (_update(arrays=_arrays(b=np.array([1, 2 * largest_value(170), 1], np.float32))), "too-large"),
        (_update(arrays=_arrays(b=np.full(3, 9, np.float32))), "norm"),
        (Refusal("alpha", "run-1", 2, "ledger-spent", CODE), "ledger-spent"),
        (SiteMetrics("alpha", "run-1", 2, CODE), "kind"),
        (Instruction(Kind.TRAIN, "run-1", 2, "", PLAN, CODE, {}), "kind"),
    ],
)
def test_each_rule_refuses_by_its_own_code(reply, code):
    with pytest.raises(AdmissionRefused) as caught:
        Admission(EXPECTED).update("alpha", reply, RULES)
    assert caught.value.code == code


@pytest.mark.parametrize("bits", [8, 16])
def test_a_compressed_update_is_judged_and_handed_on_as_what_it_means(bits):
    rules = replace(RULES, bits=bits)
    sent = _update(arrays=compress(_arrays(), bits, ("run-1", 2, "alpha")), bits=bits)
    admitted = Admission(EXPECTED).update("alpha", sent, rules)
    assert admitted.update.bits == 32
    for name, array in _arrays().items():
        assert admitted.update.arrays[name].dtype == np.float32
        np.testing.assert_allclose(admitted.update.arrays[name], array, atol=1 / 127)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"bits": 32}, "bits"),
        ({"bits": 16}, "bits"),
        ({"arrays": _arrays()}, "names"),
        (
            {"arrays": {**compress(_arrays(), 8, ("r", 1, "s")), SCALES: np.full(2, 1e38, np.float32)}},
            "not-finite",
        ),
        ({"arrays": {**compress(_arrays(), 8, ("r", 1, "s")), SCALES: np.ones(3, np.float32)}}, "shape"),
        ({"arrays": {**compress(_arrays(), 8, ("r", 1, "s")), SCALES: np.ones(2, np.float32)}}, "norm"),
    ],
)
def test_a_compressed_update_that_is_none_is_refused_by_its_code(changes, code):
    good = {"arrays": compress(_arrays(), 8, ("run-1", 2, "alpha")), "bits": 8}
    with pytest.raises(AdmissionRefused) as caught:
        Admission(EXPECTED).update("alpha", _update(**{**good, **changes}), replace(RULES, bits=8))
    assert caught.value.code == code


def test_a_long_update_counts_at_the_bound_and_the_record_says_so():
    rules = replace(RULES, bound=1.0)
    admitted = Admission(EXPECTED).update("alpha", _update(), rules)
    assert norm(admitted.update.arrays) == pytest.approx(1.0, rel=1e-6)
    assert admitted.record.update_norm == pytest.approx(4.5**0.5)
    assert admitted.record.scaled
    short = Admission(EXPECTED).update("alpha", _update(), replace(RULES, bound=5.0))
    assert not short.record.scaled
    assert short.update.arrays["w"].tobytes() == _arrays()["w"].tobytes()


def test_the_bound_is_three_medians_and_one_liar_in_three_does_not_move_it_far():
    assert norm_bound((), 50.0) == 50.0
    assert norm_bound((1.0, 2.0, 3.0), 50.0) == 6.0
    assert norm_bound((1.0, 2.0, 1e9), 50.0) == 6.0
    assert norm_bound((100.0, 200.0), 50.0) == 50.0


def test_a_second_reply_is_refused_even_when_it_is_good():
    desk = Admission(EXPECTED)
    desk.update("alpha", _update(), RULES)
    with pytest.raises(AdmissionRefused) as caught:
        desk.update("alpha", _update(), RULES)
    assert caught.value.code == "duplicate"


def test_a_site_nobody_surveyed_has_no_weight():
    with pytest.raises(AdmissionRefused) as caught:
        Admission(EXPECTED).update("gamma", _update(site="gamma"), RULES)
    assert caught.value.code == "weight"


def test_metrics_pass_the_same_gates():
    good = SiteMetrics("alpha", "run-1", 2, CODE)
    assert Admission(EXPECTED).metrics("alpha", good) is good
    for bad, code in [
        (replace(good, run="x"), "run"),
        (replace(good, site="b"), "site"),
        (_update(), "kind"),
    ]:
        with pytest.raises(AdmissionRefused) as caught:
            Admission(EXPECTED).metrics("alpha", bad)
        assert caught.value.code == code


@pytest.mark.parametrize("weight", [1, 2, 7, 10, 15, 150, 200, 7000, 1_000_000])
def test_public_buckets_are_weights(weight):
    assert weight_is_public(weight)


@pytest.mark.parametrize("weight", [0, -1, 4, 17, 151, 1234, 1_500_000, 10_000_000])
def test_exact_counts_and_outsized_weights_are_not(weight):
    assert not weight_is_public(weight)


def test_every_bucket_a_hospital_can_declare_is_a_public_weight():
    assert all(weight_is_public(public_bucket(n)) for n in [*range(1, 3000), 10**5 + 1, 999_999, 10**6])
