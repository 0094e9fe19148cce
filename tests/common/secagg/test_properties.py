"""Laws of masks, shares, codes and graphs over sites, drop-outs, dimensions and values that nobody chose."""

from __future__ import annotations

import itertools
import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import FederationError, WrongOrder
from common.messages import Terms
from common.secagg import masks, sharing
from common.secagg.coding import FIGURE, Coding, Head
from common.secagg.graph import FULL, SECRECY, SUCCESS, Graph, neighbourhood, withstood
from common.secagg.keys import new_secrets, own_seed, pair_seed, public_of

QUICK = settings(max_examples=40, deadline=None)
BITS = st.sampled_from([16, 24, 32])


@st.composite
def codings(draw):
    bits = draw(BITS)
    parties = draw(st.integers(3, 200 if bits == 16 else 1000))
    return Coding(bits, draw(st.floats(1e-3, 1e3)), draw(st.integers(1, 10**6)), parties)


@QUICK
@given(codings(), st.data())
def test_no_sum_wraps_and_every_mean_is_within_its_bound(coding, data):
    """All sites at the edge at once, and anything between; the docstring's bound on the error holds."""
    sites = data.draw(st.integers(1, min(coding.parties, 12)))
    values, weights = [], []
    for _ in range(sites):
        shares = data.draw(
            st.lists(st.sampled_from([-1.0, 1.0, 0.0, 0.5, -0.3, 1e-4]), min_size=4, max_size=4)
        )
        limit = np.nextafter(np.float32(coding.range), np.float32(0))
        values.append(np.clip(np.array(shares, np.float32) * np.float32(coding.range), -limit, limit))
        weights.append(data.draw(st.integers(1, coding.heaviest)))
    total = np.zeros(4, masks.dtype_of(coding.bits))
    for value, weight in zip(values, weights, strict=True):
        total += coding.encode(value, weight)
        masks.cut(total, coding.bits)
    exact = sum(w * v.astype(np.float64) for v, w in zip(values, weights, strict=True))
    step = 1.0 if coding.bits == 16 else 0.5
    bound = sites * step / coding.scale * (1 + 1e-9) + 1e-12 * coding.range * coding.heaviest * sites
    assert np.abs(coding.decode(total) - exact).max() <= bound


def test_as_many_hospitals_as_there_are_at_the_edge_do_not_wrap():
    for bits in (16, 24, 32):
        coding = Coding(bits, 1.0, 1, 200)
        total = np.zeros(2, masks.dtype_of(bits))
        for _ in range(200):
            total += coding.encode(np.array([1.0, -1.0], np.float32), 1)
            masks.cut(total, bits)
        np.testing.assert_allclose(coding.decode(total), [200.0, -200.0], rtol=1e-12)


def test_sixteen_bits_are_right_on_average_and_the_others_to_the_nearest():
    """A value of a tenth of a step: to the nearest it is always lost; at random it is a tenth, within 5 deviations."""
    coding = Coding(16, 1.0, 1, 8)
    value = np.full(200_000, 0.1 / coding.scale, np.float32)
    mean = coding.decode(coding.encode(value, 1)).mean() * coding.scale
    assert abs(mean - 0.1) < 5 * np.sqrt(0.09 / 200_000)
    exact = Coding(24, 1.0, 1, 8)
    assert not exact.encode(np.full(9, 0.1 / exact.scale, np.float32), 1).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -1.5])
def test_a_value_that_cannot_be_summed_is_refused(value):
    with pytest.raises(FederationError) as caught:
        Coding(24, 1.0, 10, 8).encode(np.array([0, value], np.float32), 1)
    assert caught.value.code == "secagg-range"


@pytest.mark.parametrize("weight", [0, -1, 11])
def test_a_weight_that_cannot_be_summed_is_refused(weight):
    with pytest.raises(FederationError):
        Coding(24, 1.0, 10, 8).encode(np.zeros(1, np.float32), weight)


@pytest.mark.parametrize(
    "change",
    [
        {"bits": 8},
        {"range": 0.0},
        {"range": float("inf")},
        {"heaviest": 0},
        {"range": 1e8, "heaviest": 10**6},
    ],
)
def test_terms_that_leave_no_room_are_refused(change):
    terms = Terms("sha256:r", ("a", "b", "c"), 2, 16, 1.0, 1, 1)
    with pytest.raises(FederationError):
        Coding.of(Terms(**{**vars(terms), **change}))


@QUICK
@given(st.integers(1, 10**6), st.floats(0, 50), st.floats(0, 1), st.booleans())
def test_a_head_is_exact(weight, loss, auroc, worse):
    head = Head(weight, weight, weight * loss, weight * auroc, 1, int(worse))
    found = Head.decode(head.encode())
    assert (found.weight, found.measured, found.judged, found.worse) == (weight, weight, 1, int(worse))
    assert abs(found.loss - head.loss) <= FIGURE
    assert abs(found.auroc - head.auroc) <= FIGURE


@QUICK
@given(BITS, st.integers(1, 70), st.integers(2, 6), st.data())
def test_all_masks_of_those_who_stay_cancel_once_the_shares_of_each_are_known(bits, values, sites, data):
    names = [f"s{number}" for number in range(sites)]
    held = {name: new_secrets() for name in names}
    bond, rng = secrets.token_bytes(32), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    plain = {n: rng.integers(0, 2**bits, values, np.uint64).astype(masks.dtype_of(bits)) for n in names}
    alive = data.draw(st.sets(st.sampled_from(names), min_size=1))
    total = np.zeros(values, masks.dtype_of(bits))
    for name in alive:
        vector = plain[name].copy()
        masks.add(vector, own_seed(held[name].own, name, bond), bits)
        for other in names:
            if other != name:
                seed = pair_seed(held[name].mask, name, public_of(held[other].mask), other, bond)
                masks.add(vector, seed, bits, minus=other < name)
        assert values < 8 or not np.array_equal(vector, plain[name])
        total += vector
        masks.cut(total, bits)
    for name in alive:
        masks.add(total, own_seed(held[name].own, name, bond), bits, minus=True)
        for gone in set(names) - alive:
            seed = pair_seed(held[gone].mask, gone, public_of(held[name].mask), name, bond)
            masks.add(total, seed, bits, minus=not gone < name)
    exact = sum(plain[name].astype(np.uint64) for name in alive) % np.uint64(2**bits)
    assert np.array_equal(total, exact.astype(total.dtype))


@QUICK
@given(BITS, st.integers(0, 40))
def test_what_travels_is_what_was_sent(bits, values):
    vector = (
        np.random.default_rng(values).integers(0, 2**bits, values, np.uint64).astype(masks.dtype_of(bits))
    )
    sent = masks.to_wire(vector, bits)
    assert sent.nbytes == values * bits // 8
    found = masks.from_wire(sent, bits, values)
    assert found is not None
    assert np.array_equal(found, vector)
    assert masks.from_wire(sent, bits, values + 1) is None


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 9), st.data())
def test_any_threshold_of_shares_opens_and_fewer_are_refused(holders, data):
    threshold = data.draw(st.integers(2, holders))
    secret = secrets.token_bytes(32)
    dealt = dict(enumerate(sharing.split(secret, threshold, holders), start=1))
    chosen = data.draw(st.sets(st.sampled_from(sorted(dealt)), min_size=threshold))
    assert sharing.combine({number: dealt[number] for number in chosen}, threshold) == secret
    few = dict(itertools.islice(dealt.items(), threshold - 1))
    with pytest.raises(WrongOrder):
        sharing.combine(few, threshold)
    if threshold > 2:
        assert sharing.combine(few, threshold - 1) != secret


def test_a_share_opens_for_its_holder_alone():
    one, two, three = new_secrets(), new_secrets(), new_secrets()
    share = sharing.Share(b"m" * 32, b"o" * 32)
    route = sharing.Route("one", "two", b"g" * 32)
    text = sharing.seal(share, route, one.seal, public_of(two.seal))
    assert len(text) == 124
    assert sharing.unseal(text, route, two.seal, public_of(one.seal)) == share
    flipped = text[:40] + ("A" if text[40] != "A" else "B") + text[41:]
    for blob, way, key in (
        (text, route, three.seal),
        (text, sharing.Route("three", "two", b"g" * 32), two.seal),
        (text, sharing.Route("one", "two", b"h" * 32), two.seal),
        (text, sharing.Route("two", "one", b"g" * 32), two.seal),
        (flipped, route, two.seal),
        ("", route, two.seal),
        ("%%%", route, two.seal),
    ):
        with pytest.raises(FederationError) as caught:
            sharing.unseal(blob, way, key, public_of(one.seal))
        assert caught.value.code == "secagg-share"


# The sparse graph


@pytest.mark.parametrize("parties", [3, 8, FULL])
def test_up_to_twenty_everybody_is_a_neighbour(parties):
    rule = neighbourhood(parties, parties // 2 + 1, 0)
    graph = Graph.of([f"s{n}" for n in range(parties)], rule, b"g" * 32)
    assert all(len(graph.neighbours(site)) == parties - 1 for site in graph.ring)
    assert rule.threshold == parties // 2 + 1


@pytest.mark.parametrize(("parties", "share"), [(21, 0.6), (50, 0.6), (100, 0.55), (200, 0.6)])
def test_a_sparse_graph_keeps_its_two_promises_and_is_the_same_for_everybody(parties, share):
    threshold = int(parties * share) + 1
    rule = neighbourhood(parties, threshold, withstood(parties, threshold))
    assert rule.size < parties - 1
    assert rule.secrecy <= SECRECY
    assert rule.success <= SUCCESS
    names = [f"s{n}" for n in range(parties)]
    graph = Graph.of(names, rule, b"g" * 32)
    assert Graph.of(reversed(names), rule, b"g" * 32) == graph
    assert Graph.of(names, rule, b"h" * 32).ring != graph.ring
    for site in names:
        assert len(graph.neighbours(site)) == rule.size
        assert all(site in graph.neighbours(other) for other in graph.neighbours(site))


def _pieces(graph, alive):
    left, pieces = set(alive), 0
    while left:
        pieces += 1
        front = [left.pop()]
        while front:
            near = left & set(graph.neighbours(front.pop()))
            left -= near
            front += near
    return pieces


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2))
def test_a_list_that_would_cut_sites_off_is_found_out_whoever_colludes(seed, colluding):
    """Against every choice of colluding sites on a ring of 22 with 4 neighbours each."""
    rng = np.random.default_rng(seed)
    from common.secagg.graph import Neighbourhood  # noqa: PLC0415

    graph = Graph.of([f"s{n}" for n in range(22)], Neighbourhood(4, 2), rng.bytes(32))
    alive = {site for site in graph.ring if rng.random() < 0.8}
    apart = any(
        _pieces(graph, alive - set(gone)) > 1
        for size in range(colluding + 1)
        for gone in itertools.combinations(sorted(alive), size)
    )
    if graph.in_one_piece(alive, colluding):
        assert not apart


def test_the_server_cannot_surround_one_hospital():
    rule = neighbourhood(30, 16, withstood(30, 16))
    graph = Graph.of([f"s{n}" for n in range(30)], rule, b"g" * 32)
    victim = graph.ring[0]
    near = set(graph.neighbours(victim))
    assert len(near) > 30 - 16 or not graph.in_one_piece(set(graph.ring) - near, 0)
