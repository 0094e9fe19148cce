"""A plan that `check-plan` calls good can be built, and trained as it asks."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from server.cli import app

PLAN = """
[study]
name = "s"
question = "Is it there?"
[task]
kind = "binary"
classes = ["finding"]
[input]
modalities = ["DX"]
shape = [32, 32]
[labels]
source = "csv"
provenance = "two readers"
[model]
name = "small-cnn"
"""


def check(tmp_path, text: str) -> tuple[int, str]:
    path = tmp_path / "asked.toml"
    path.write_text(text)
    done = CliRunner().invoke(app, ["check-plan", str(path), "--json"])
    return done.exit_code, done.output


def test_a_good_plan_is_named_by_its_digest(tmp_path):
    status, output = check(tmp_path, PLAN)
    assert status == 0
    assert json.loads(output)["digest"].startswith("sha256:")


@pytest.mark.parametrize(
    ("addition", "where"),
    [
        ("[model.options]\nwdith = 8", "model.options.wdith"),
        ('[model.options]\nwidth = "wide"', "model.options.width"),
        ("[model.options]\nwdith = 8\nwidth = -1", "model.options.width"),
    ],
)
def test_options_the_network_does_not_know_are_mistakes_of_the_plan(tmp_path, addition, where):
    status, output = check(tmp_path, PLAN + addition)
    assert status == 2
    assert "asked.toml" in output
    assert where in output


def test_a_network_without_a_map_left_is_refused_before_any_hospital_sees_it(tmp_path):
    status, output = check(tmp_path, PLAN.replace("small-cnn", "resnet18").replace("[32, 32]", "[16, 16]"))
    assert status == 2
    assert "input.shape" in output
