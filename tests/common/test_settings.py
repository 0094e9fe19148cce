"""Settings: a file, the environment over it, one error that names every wrong key."""

from __future__ import annotations

from dataclasses import field

import pytest
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from common.errors import SettingsError
from common.settings import load_settings, overlay


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Part:
    name: str = "unnamed"
    count: int = 0
    flag: bool = False
    ratio: float = 1.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Whole:
    part: Part = field(default_factory=Part)


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('[part]\nname = "a"\ncount = 3\n')
    return path


def test_the_environment_lies_over_the_file(settings) -> None:
    environ = {"CONSILIUM__PART__COUNT": "5", "CONSILIUM__PART__FLAG": "true", "HOME": "/somewhere"}
    assert load_settings(settings, Whole, environ).part == Part("a", 5, flag=True)


def test_a_value_that_is_not_toml_is_text() -> None:
    raw: dict[str, object] = {}
    overlay(raw, {"CONSILIUM__PART__NAME": "plain words", "CONSILIUM__PART__RATIO": "0.5"})
    assert raw == {"part": {"name": "plain words", "ratio": 0.5}}


def test_every_wrong_key_is_named_and_no_value_is_shown(settings) -> None:
    settings.write_text('[part]\ncount = "secret-value"\nflag = 7\ncolour = 1\n')
    with pytest.raises(SettingsError) as caught:
        load_settings(settings, Whole, {})
    text = str(caught.value)
    assert all(key in text for key in ("part.count", "part.flag", "part.colour", "site.toml"))
    assert "secret-value" not in text


def test_a_file_that_is_not_there_says_what_to_do(tmp_path) -> None:
    with pytest.raises(SettingsError, match="not there") as caught:
        load_settings(tmp_path / "site.toml", Whole, {})
    assert "init" in caught.value.remedy


@pytest.mark.parametrize("content", [b"[part\n", b"\xff\xfe\x00", b"a = = 1"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="not readable TOML"):
        load_settings(path, Whole, {})


def test_a_variable_that_walks_through_a_value_is_refused_by_name(settings) -> None:
    """`CONSILIUM__PART__COUNT__DEEPER` finds a number where a section should be."""
    with pytest.raises(SettingsError, match="CONSILIUM__PART__COUNT__DEEPER"):
        load_settings(settings, Whole, {"CONSILIUM__PART__COUNT__DEEPER": "1"})


def test_a_variable_without_a_key_is_refused_by_name(settings) -> None:
    with pytest.raises(SettingsError, match="CONSILIUM__"):
        load_settings(settings, Whole, {"CONSILIUM__": "1"})
