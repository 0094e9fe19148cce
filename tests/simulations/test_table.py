"""The table at the end of a run: what was measured, what was not, and whether somebody was missing."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from server.records import RunRecord, read_record
from simulations.table import figure, summary_table


def drawn(record: RunRecord) -> str:
    page = StringIO()
    Console(width=200, file=page).print(summary_table(record))
    return page.getvalue()


def test_every_hospital_and_arm_has_its_figure(run: Path) -> None:
    record = read_record(run / "metrics.json")
    text = drawn(record)
    assert record.question in text
    for arm in record.arms.values():
        assert arm.arm in text
        for site, metrics in arm.sites.items():
            assert figure(metrics.models[0].groups[0].auroc) in text
            (line,) = (line for line in text.splitlines() if f" {site} " in line)
            assert figure(metrics.models[0].groups[0].auroc) in line
    assert "SUBSET" not in text


def test_what_was_spent_stands_at_each_hospital(run: Path) -> None:
    record = read_record(run / "metrics.json")
    for site, metrics in record.arms["federated-dp"].sites.items():
        (line,) = (line for line in drawn(record).splitlines() if f" {site} " in line)
        assert f"{metrics.epsilon:.2f}" in line


def test_a_run_on_some_of_the_hospitals_says_subset(run: Path) -> None:
    record = read_record(run / "metrics.json")
    arm = record.arms["federated"]
    assert arm.federation is not None
    partial = replace(arm, federation=replace(arm.federation, trained=("alder",), subset=True))
    assert "SUBSET" in drawn(replace(record, arms={**record.arms, "federated": partial}))


def test_a_figure_that_was_held_back_is_a_dash(twins: tuple[Path, ...]) -> None:
    """So few patients leave test cells below eleven."""
    record = read_record(twins[0] / "metrics.json")
    assert figure(None) == "–"
    (line,) = (line for line in drawn(record).splitlines() if " alder " in line)
    assert line.count("–") >= 3


def test_a_dash_is_explained_and_where_all_are_dashes_what_to_do(run: Path, twins: tuple[Path, ...]) -> None:
    whole, few = read_record(run / "metrics.json"), read_record(twins[0] / "metrics.json")
    shown = any(g.auroc for a in few.arms.values() for m in a.sites.values() for g in m.models[0].groups[:1])
    assert not shown
    assert "fewer than 11 test patients with the finding, or without it" in drawn(few)
    assert "Ask for more patients" in drawn(few)
    complete = all(
        g.auroc for a in whole.arms.values() for m in a.sites.values() for g in m.models[0].groups[:1]
    )
    assert complete
    assert "fewer than" not in drawn(whole)
