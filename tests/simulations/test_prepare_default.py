"""What `flwr run .` finds when it names no federation."""

from __future__ import annotations

import pytest

from client.site import load_site
from common.plan import load_plan
from simulations import prepare


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [prepare.prepare_default(2, cache) for _ in range(2)]


def test_images_are_shared_and_ledgers_are_fresh(runs):
    """A second run must neither draw the patients again nor inherit what the first one spent."""
    (first, plan), (second, again) = runs
    assert first != second
    assert plan == again
    one, two = (sorted(path.parent for path in folder.glob("*/site.toml")) for folder in (first, second))
    assert [folder.name for folder in one] == [folder.name for folder in two]
    assert len(one) == 2
    for here, there in zip(one, two, strict=True):
        assert load_site(here).data.samefile(load_site(there).data)
        assert load_site(here).ledger != load_site(there).ledger
        assert load_site(here).ledger.exists()
        assert load_site(here).simulated


def test_the_plan_is_whole(runs):
    assert load_plan(runs[0][1]).federation.rounds > 1
