"""A masked sum of counts between the sites' real halves, without a network: exact, whoever vanishes, and to nobody else's profit."""

from __future__ import annotations

import numpy as np
import pytest

from client.analytics.analyst import Part
from common.analytics import decoded, schema_of
from common.errors import FederationError
from common.messages import Kind, Masked, Secure, Terms
from common.types import RunId, SiteName
from server.unmasking import MaskedSum, open_sum
from tests.counted import survey_plan
from tests.masked_round import Table

NAMES = ("anna", "bert", "carla", "dora", "emil")


class Counting(Table):
    """A table whose sites count; what each counts is drawn."""

    @property
    def terms(self) -> Terms:
        names = tuple(SiteName(name) for name in sorted(self.names))
        size = schema_of(self.plan).size
        return Terms(self.roster.digest, names, self.threshold, 32, 1.0, 1, size)

    def counts(self, name: str) -> np.ndarray:
        seed = self.names.index(name)
        return np.random.default_rng(seed).integers(0, 10**6, schema_of(self.plan).size)

    def update(self, name, instruction):
        return Part(self.counts(name), simulated=True)

    def do_count(self, *vanish: str) -> None:
        for name in self.dealt:
            if name not in vanish:
                reply = self.ask(name, Kind.ANALYSE, Secure(self.terms, dealt=self.dealt))
                assert isinstance(reply, Masked)
                self.masked[name] = reply

    def vector(self) -> np.ndarray:
        """The opened sum."""
        total = MaskedSum(self.terms)
        for reply in self.masked.values():
            total.fold(*(vector.copy() for vector in total.admits(reply.arrays)))
        open_sum(total, self.ending, self.opened)
        assert int(total.head[0]) == len(self.masked)
        return decoded(total.values)


def around(folder, **sections) -> Counting:
    return Counting(folder, NAMES, survey_plan(NAMES, **sections), model={})


@pytest.mark.parametrize("stage", ["keys", "shares", "count", "consent", "unmask", None])
def test_two_of_five_vanish_at_any_stage_and_the_sum_of_the_rest_is_exact_to_the_patient(tmp_path, stage):
    it = around(tmp_path)
    gone = ("bert", "dora")
    for name, step in (
        ("keys", it.do_keys),
        ("shares", it.do_shares),
        ("count", it.do_count),
        ("consent", it.do_consent),
        ("unmask", it.do_unmask),
    ):
        step(*(gone if name == stage else ()))
    inside = [name for name in NAMES if name not in gone or stage in ("consent", "unmask", None)]
    assert sorted(it.masked) == inside
    assert np.array_equal(it.vector(), np.sum([it.counts(name) for name in inside], axis=0))


def test_what_the_server_holds_of_one_hospital_is_not_its_counts(tmp_path):
    it = around(tmp_path)
    it.do_keys()
    it.do_shares()
    it.do_count()
    for name, reply in it.masked.items():
        values = np.frombuffer(reply.arrays["values"].tobytes(), np.uint32)
        same = int((values == it.counts(name)).sum())
        assert same == 0
        # Uniform over 32 bits: half of the values are above what any count can be.
        assert 0.35 < float((values > 2**31).mean()) < 0.65


def test_the_same_list_again_is_signed_and_one_hospital_less_is_not(tmp_path):
    first = around(tmp_path)
    for step in (first.do_keys, first.do_shares, first.do_count, first.do_consent, first.do_unmask):
        step()
    again = around(tmp_path)
    again.run = "run-2"
    for step in (again.do_keys, again.do_shares, again.do_count, again.do_consent):
        step()
    third = around(tmp_path)
    third.run = "run-3"
    third.do_keys()
    third.do_shares()
    third.do_count("emil")
    with pytest.raises(FederationError) as caught:
        third.do_consent()
    assert caught.value.code == "secagg-difference"
    third.consents = {}
    with pytest.raises(FederationError):
        third.do_unmask()


def test_with_noise_one_hospital_less_may_be_signed(tmp_path):
    """Each sum has noise of its own, so that a difference tells no counts."""
    for run, vanish in (("run-1", ()), ("run-2", ("emil",))):
        it = around(tmp_path, analytics={"epsilon": 1.0})
        it.run = run
        it.do_keys()
        it.do_shares()
        it.do_count(*vanish)
        it.do_consent()


@pytest.mark.parametrize(
    "changed",
    [{"bits": 24}, {"range": 2.0}, {"heaviest": 2}, {"values": 305}, {"members": NAMES[:4]}],
)
def test_terms_other_than_those_of_an_analysis_are_refused(tmp_path, changed):
    it = around(tmp_path)
    values = {field: getattr(it.terms, field) for field in it.terms.__dataclass_fields__}
    with pytest.raises(FederationError) as caught:
        it.ask("anna", Kind.KEYS, Secure(Terms(**{**values, **changed})))
    assert caught.value.code in ("secagg-terms", "secagg-roster")


def test_who_shows_cells_of_its_own_is_not_in_a_sum(tmp_path):
    it = around(tmp_path, analytics={"own": ["anna"]})
    with pytest.raises(FederationError) as caught:
        it.do_keys()
    assert caught.value.code == "secagg-roster"


def test_a_model_is_not_trained_in_the_place_of_a_count(tmp_path):
    it = around(tmp_path)
    it.do_keys()
    it.do_shares()
    with pytest.raises(FederationError) as caught:
        it.ask("anna", Kind.TRAIN, Secure(it.terms, dealt=it.dealt), model={})
    assert caught.value.code == "secagg-order"
    assert it.run == RunId("run-1")
