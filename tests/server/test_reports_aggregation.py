"""The report says in plain words what the server saw, and claims the merits of one way only."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.reports.aggregation import aggregations
from server.reports.consortium import report_html
from tests.server.report_records import realistic


def _masked(record, **changes):
    """The same record, its rounds masked."""

    def of(round_):
        sites = {s: replace(r, update_norm=None, loss=None, auroc=None) for s, r in round_.sites.items()}
        return replace(round_, **{"masked": True, "judged": 4, "sites": sites, **changes})

    arms = {
        name: arm
        if arm.federation is None
        else replace(arm, federation=replace(arm.federation, rounds=tuple(map(of, arm.federation.rounds))))
        for name, arm in record.arms.items()
    }
    return replace(record, arms=arms)


@pytest.fixture(scope="module")
def record():
    return realistic()


def test_a_visible_run_does_not_claim_that_updates_were_hidden(record):
    for arm in aggregations(record):
        text = " ".join(arm.sentences)
        assert arm.title == "The server saw each hospital's update"
        assert "masked" not in text
        assert "could look for a hospital that sends nonsense" in text


def test_a_masked_run_does_not_claim_robust_rules(record):
    for arm in aggregations(_masked(record)):
        text = " ".join(arm.sentences)
        assert arm.title == "The server saw sums alone"
        assert "cannot be named" in text
        assert "could look for" not in text
        assert "none was found harmful" in text


def test_a_rollback_is_said(record):
    told = [" ".join(arm.sentences) for arm in aggregations(_masked(record, rolled_back=True))]
    assert all("the model before came back" in text for text in told)
    silent = [" ".join(arm.sentences) for arm in aggregations(_masked(record, judged=0))]
    assert all("No aggregate was judged" in text for text in silent)


def test_epsilon_is_claimed_where_there_is_one_only(record):
    for made in (record, _masked(record)):
        for arm, told in zip(
            [a for a in made.arms.values() if a.federation and a.federation.rounds],
            aggregations(made),
            strict=True,
        ):
            assert arm.arm
            assert ("nothing bounds" in told.sentences[-1]) != ("bounded by" in told.sentences[-1])


def test_both_reports_can_be_written(record):
    assert "the server saw each hospital" in report_html(record)
    assert "the server saw sums alone" in report_html(_masked(record))
