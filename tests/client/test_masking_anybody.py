"""The whole protocol over sites, drop-outs, dimensions and values that nobody chose: real sites, the sum exact or no sum."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from client.privacy.masking import STAGES
from tests.masked import masked_plan
from tests.masked_round import Table


@st.composite
def rounds(draw):
    """A table, and at which stage each of those who may vanish does."""
    count = draw(st.integers(3, 7))
    names = tuple(f"site-{number}" for number in range(count))
    shapes = draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=2), min_size=1, max_size=3))
    may = count - max(3, count // 2 + 1)
    gone = draw(st.sets(st.sampled_from(names), max_size=may))
    when = {name: draw(st.sampled_from(STAGES)) for name in sorted(gone)}
    return names, shapes, draw(st.sampled_from([16, 24, 32])), when, draw(st.integers(0, 2**32 - 1))


@settings(max_examples=12, deadline=None)
@given(rounds())
def test_whoever_vanishes_at_whatever_stage_the_sum_of_the_others_is_exact(drawn):
    names, shapes, bits, when, seed = drawn
    rng = np.random.default_rng(seed)
    model = {f"t{n}": np.zeros(shape, np.float32) for n, shape in enumerate(shapes)}
    values = rng.choice([-4.0, 4.0, 0.0, 1e-6, 0.3], size=(len(names), 100)).astype(np.float32)
    updates = {
        name: {t: np.resize(values[number], a.shape) for t, a in model.items()}
        for number, name in enumerate(names)
    }
    weights = {
        name: int(weight) for name, weight in zip(names, rng.integers(1, 10**5, len(names)), strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        plan = masked_plan(names, mask_bits=bits, max_update_norm=1e6)
        round_ = Table(Path(folder), names, plan, model=model, updates=updates, weights=weights)
        for stage in STAGES:
            gone = {name for name, at in when.items() if STAGES.index(at) <= STAGES.index(stage)}
            getattr(round_, f"do_{stage.value}")(*gone)
        found, head = round_.total()
    alive = [n for n in names if n not in when or STAGES.index(when[n]) > STAGES.index(STAGES[2])]
    assert sorted(round_.masked) == sorted(alive)
    assert head.weight == sum(weights[name] for name in alive)
    most = (2 ** (bits - 1) - 1) // len(names)
    step = max(weights.values()) * 4.0 / most
    for name, exact in round_.expected().items():
        bound = len(alive) * step * (1.0 if bits == 16 else 0.5) + 1e-6 * step + 2.0**-32
        assert np.abs(found.counts[name] * 2.0**-32 - exact).max() <= bound
