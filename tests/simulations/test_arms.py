"""What happens when an arm cannot go on: the right ending, and nothing lost that was done."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter
from typer.testing import CliRunner

from client.site import load_site
from server.journal import read_federation
from server.records import ArmRecord
from simulations.arms import comparisons, run_arms
from simulations.board import board
from simulations.cli import app
from simulations.crew import crew
from simulations.prepare import arm_site
from tests.simulations.runs import HOSPITALS, federation_of, only, small, write_scenario


def arm_record(run: Path, arm: str) -> ArmRecord:
    return TypeAdapter(ArmRecord).validate_json((run / "arms" / arm / "record.json").read_bytes())


def test_a_failing_arm_ends_the_run_by_its_own_status_and_what_had_finished_is_kept(tmp_path: Path) -> None:
    """The hospitals refuse the private arm's clip; `alone` was done before."""
    path = write_scenario(tmp_path, arms=("alone", "federated-dp"), clip=50.0, rounds=1)
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "runs")])
    assert result.exit_code == 7
    assert "policy-clip" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    run = only(tmp_path / "runs")
    assert str(run) in result.stderr, "the reader is told where it lies"
    assert set(arm_record(run, "alone").sites) == set(HOSPITALS)
    assert read_federation(run / "arms" / "federated-dp" / "federation.json").status == "subset"
    assert not (run / "metrics.json").exists(), "nothing is reported from half a run"
    assert not (run / "report.html").exists()
    assert not (run / "federation" / "incoming").exists()


def test_every_arm_left_its_record(run: Path) -> None:
    for arm in ("alone", "federated", "federated-dp", "pooled"):
        assert set(arm_record(run, arm).sites) == set(HOSPITALS)
        assert arm_record(run, arm).seconds > 0


def test_an_arm_without_one_of_its_hospitals_goes_on_as_a_subset(
    twins: tuple[Path, ...], tmp_path: Path
) -> None:
    """One hospital forbids training without privacy; the plan is content with the other."""
    federation = federation_of(twins[2])
    scenario = small(tmp_path, arms=("federated",), rounds=1)
    scenario.plan["federation"]["least_sites"] = 1
    folder = federation.folder / "arms" / "federated" / "birch" / "site.toml"
    before = folder.read_text()
    folder.write_text(before.replace("allow_non_private = true", "allow_non_private = false"))
    try:
        assert not load_site(folder.parent).policy.allow_non_private
        with board() as bars, crew(bars, 1) as hands:
            arms = run_arms(scenario, federation, tmp_path, hands)
    finally:
        folder.write_text(before)
    ran = arms["federated"].federation
    assert ran is not None
    assert ran.subset
    assert (ran.expected, ran.trained) == (HOSPITALS, ("alder",))


def test_hospitals_that_scored_nothing_are_compared_in_nothing(twins: tuple[Path, ...]) -> None:
    """No hospital trained alone there, so that nothing is said against it."""
    federation = federation_of(twins[0])
    assert not arm_site(federation, "pooled", "alder").scores.joinpath("alone.npz").exists()
    found = comparisons(federation, small(twins[0].parent).plan_for("federated"))
    assert set(found) == set(HOSPITALS)
    assert all("alone" not in (row.model, row.other) for rows in found.values() for row in rows)
