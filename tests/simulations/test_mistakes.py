"""What a person is told who wrote a scenario with mistakes in it: the hospital, the value, the key that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import ConsiliumError, LabelError, PlanError
from simulations.cli import app
from simulations.mistakes import at_hospital
from simulations.scenario import HERE, load_scenario
from simulations.tables.study import load_study

SITE = """
[[site]]
name = "{name}"
patients = {patients}
prevalence = {prevalence}
scanners = {{ {scanner} = 1 }}
{more}
"""


def told(folder: Path, text: str = "", **site: object) -> str:
    """What is said of a scenario with this in it, and of the second of its hospitals with these values."""
    second = {"name": "b", "patients": 20, "prevalence": 0.4, "scanner": "aster-dr", "more": ""} | site
    first = SITE.format(name="a", patients=20, prevalence=0.3, scanner="aster-dr", more="")
    path = folder / "own.toml"
    whole = f'base = "demo"\n[scenario]\nname = "own"\n{text}\n' + first + SITE.format(**second)
    path.write_text(whole, encoding="utf-8")
    with pytest.raises(ConsiliumError) as error:
        load_scenario(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("site", "line"),
    [
        ({"prevalence": 1.3}, "site.b.prevalence: must be less than or equal to 1, not 1.3."),
        ({"patients": 2}, "site.b.patients: must be greater than or equal to 8, not 2."),
        ({"prevalence": "[0.1, 1.3]"}, "site.b.prevalence.1: must be less than or equal to 1, not 1.3."),
        ({"more": "copys = 3"}, "site.b.copys: there is no such key. Perhaps copies was meant"),
        ({"more": "colour = 3"}, "site.b.colour: there is no such key. There are ages, ap, away"),
        ({"more": "ages = { men = 3 }"}, "site.b.ages.men: there is no such key. Perhaps mean was meant"),
        ({"name": "B b"}, "site.B b.name:"),
    ],
)
def test_a_wrong_value_is_told_once_with_its_hospital(
    tmp_path: Path, site: dict[str, object], line: str
) -> None:
    text = told(tmp_path, **site)
    assert text.startswith("own.toml: 1 mistake in the scenario.")
    assert line in text
    assert "constrained" not in text


def test_every_mistake_of_a_file_is_told(tmp_path: Path) -> None:
    text = told(tmp_path, "hospital = 3\nseed = -1", prevalence=1.3, more="colour = 3")
    assert "4 mistakes" in text
    assert "scenario.hospital: there is no such key. Perhaps hospitals was meant" in text
    assert "scenario.seed: must be greater than or equal to 0, not -1." in text


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"scanner": "aster-xx"}, "b: unknown scanner aster-xx. Use one of aster-dr,"),
        ({"prevalence": 1.0}, "b: nobody or everybody is ill."),
        (
            {"more": '[[site.drift]]\nscanner = "aster-dr"\npath = "detector.electronics"\nper_month = 0.1'},
            "b: detector.electronics of aster-dr names nothing at electronics. There are element_mm, efficiency",
        ),
        (
            {"more": '[[site.drift]]\nscanner = "aster-dr"\npath = "open_kerma_ugy.median"\nper_month = 0.1'},
            "b: open_kerma_ugy.median of aster-dr names nothing at median. Leave out what follows the number",
        ),
    ],
)
def test_what_no_machine_can_do_is_told_before_a_folder_is_made(
    tmp_path: Path, site: dict[str, object], words: str
) -> None:
    assert words in told(tmp_path, **site)


def test_a_file_that_is_no_toml_is_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[scenario]\nname = \n", encoding="utf-8")
    with pytest.raises(ConsiliumError, match=r"it is not TOML: .*line 2"):
        load_scenario(tmp_path / "own.toml")


def test_a_study_of_a_table_is_told_its_mistakes_alike(tmp_path: Path) -> None:
    text = (HERE.parent / "tables" / "heart_disease.toml").read_text(encoding="utf-8")
    (tmp_path / "own.toml").write_text(f"colour = 3\n{text}", encoding="utf-8")
    with pytest.raises(PlanError, match="in the study") as error:
        load_study(tmp_path / "own.toml")
    assert "colour: there is no such key" in str(error.value)


def test_a_hospitals_own_error_is_told_with_its_name_and_what_a_scenario_can_do() -> None:
    with pytest.raises(LabelError) as error, at_hospital("north"):
        raise LabelError(
            "labels.csv", "all labels are of one class", "Mark every line split = test", code="one"
        )
    assert str(error.value).startswith(
        "north, labels.csv: all labels are of one class. Real images: name it in"
    )
    assert error.value.code == "one"
    with pytest.raises(LabelError, match=r"^north\.csv: it is empty\. Fill it$"), at_hospital("north"):
        raise LabelError("north.csv", "it is empty", "Fill it")


def test_the_hospital_of_many_that_cannot_be_taken_in_is_named(tmp_path: Path) -> None:
    """Eight patients of whom none is ill: the file's name alone, labels.csv, would say nothing."""
    whole = SITE.format(name="a", patients=20, prevalence=0.3, scanner="aster-dr", more="")
    healthy = SITE.format(name="b", patients=8, prevalence=0.001, scanner="aster-dr", more="")
    path = tmp_path / "own.toml"
    path.write_text(f'base = "demo"\n[scenario]\nname = "own"\n{whole}{healthy}', encoding="utf-8")
    found = CliRunner().invoke(app, ["run", str(path), "--out", str(tmp_path / "runs")])
    assert found.exit_code == 2
    assert "b, labels.csv: all labels are of one class" in f"{found.output}{found.stderr}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "it needs a folder of images that holds labels.csv"),
        (["--data", "NOWHERE"], "there is no such folder"),
        (["--data", "EMPTY"], "there is no labels.csv in it"),
    ],
)
def test_a_folder_of_images_that_is_missing_is_told_before_a_run_begins(
    tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"NOWHERE": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty")}
    typed = [places.get(word, word) for word in words]
    found = CliRunner().invoke(
        app,
        ["run", str(HERE / "cxr_pneumonia.toml"), "--out", str(tmp_path / "runs"), *typed],
        env={"CONSILIUM_DATA": None},
    )
    assert not (tmp_path / "runs").exists()
    assert found.exit_code == 2
    assert said in f"{found.output}{found.stderr}"
