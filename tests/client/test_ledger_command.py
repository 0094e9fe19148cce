"""What hospital IT and a regulator see of the ledger, by the commands they type."""

from __future__ import annotations

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.policy import Policy
from client.privacy.desk import Asked, Desk
from client.privacy.ledger import Ledger, Release
from client.site import init_site
from common.accounting import DpEventSpec
from server.heads import HeadBook
from tests.client.crash_rounds import COHORT, EVENT, LIMITS, release_of


@pytest.fixture
def site(tmp_path):
    made = init_site(tmp_path / "alpha", "alpha", policy=Policy(min_patients=1, max_epsilon_per_run=0.12))
    Ledger.create(made.ledger).close()
    desk, server = Desk(made), HeadBook(tmp_path / "consortium")
    for number in (1, 2, 3, 4):
        server.proven("alpha", desk.head())
        asked = Asked(release_of(number), server.countersign("alpha", "run-a", number))
        desk.send(asked, lambda pay: (pay(COHORT, EVENT, LIMITS), b"update")[1])
    desk.charge(Release("run-b", 1, "sha256:plan-b", "sha256:m"), COHORT[:3], EVENT, LIMITS)
    return made


def run(site, *words, status=0):
    result = CliRunner().invoke(app, ["ledger", *map(str, words), "--site", str(site.folder)])
    assert result.exit_code == status, result.output
    return result.output


def test_show_tells_spend_limits_spread_pin_and_head(site):
    found = json.loads(run(site, "show", "--json"))
    assert [usage["span"] for usage in found["usage"]] == ["run", "lifetime", "year"]
    assert [(part["name"], part["rounds"], part["patients"]) for part in found["runs"]] == [
        ("run-a", 4, 12),
        ("run-b", 1, 3),
    ]
    assert [part["name"] for part in found["studies"]] == ["sha256:plan", "sha256:plan-b"]
    assert sum(found["patients_by_tenth"]) == 12
    assert found["head"]["sequence"] == 9
    assert found["countersigned"]["sequence"] == 6
    assert found["server"].startswith("sha256:")
    text = run(site, "show")
    assert "WARNING: 80% spent" in text
    assert "█" in text
    assert not any(key in text for key in COHORT)


def test_show_can_tell_of_a_ledger_without_bound(site):
    with Ledger(site.ledger) as ledger:
        from dataclasses import replace  # noqa: PLC0415

        open_limits = replace(LIMITS, allow_non_private=True)
        ledger.charge(release_of(8), COHORT, DpEventSpec(1.0, 0.0, 1), open_limits)
    assert "without bound" in run(site, "show")


def test_verify_finds_every_kind_of_change(site, tmp_path):
    run(site, "export", tmp_path / "march.json")
    assert "9 rows and 2 stored updates are whole" in run(site, "verify")
    assert "contains the export's row 9" in run(site, "verify", "--against", tmp_path / "march.json")
    db = sqlite3.connect(site.ledger)
    db.execute("UPDATE updates SET blob = x'00'")
    db.commit()
    db.close()
    run(site, "verify", status=5)


def test_an_export_holds_no_spend_key_unless_asked_and_is_checked_alone(site, tmp_path):
    path = tmp_path / "march.json"
    run(site, "export", path)
    assert not any(key in path.read_text() for key in COHORT)
    values = json.loads(path.read_text())
    for row in (0, 4):
        bad = json.loads(path.read_text())
        bad["rows"][row]["body"] = bad["rows"][row]["body"].replace('"steps":1', '"steps":0')
        if bad == values:
            bad["rows"][row]["digest"] = "sha256:" + "0" * 64
        (tmp_path / "bad.json").write_text(json.dumps(bad))
        run(site, "verify", "--against", tmp_path / "bad.json", status=2)
    values["countersignature"]["head"]["sequence"] = 2
    (tmp_path / "bad.json").write_text(json.dumps(values))
    run(site, "verify", "--against", tmp_path / "bad.json", status=2)
    run(site, "export", path, "--with-keys")
    assert all(key in path.read_text() for key in COHORT)


def test_an_export_from_before_a_rollback_shows_it(site, tmp_path):
    old = site.ledger.read_bytes()
    Desk(site).charge(release_of(9), COHORT, EVENT, LIMITS)
    run(site, "export", tmp_path / "later.json")
    site.ledger.write_bytes(old)
    assert "rows" in run(site, "verify")
    run(site, "verify", "--against", tmp_path / "later.json", status=5)


def test_trust_lets_go_of_the_named_key_only(site):
    run(site, "trust", "sha256:other", status=5)
    run(site, "trust", json.loads(run(site, "show", "--json"))["server"])
    assert json.loads(run(site, "show", "--json"))["server"] is None
