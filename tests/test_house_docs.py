"""What the documents say is what the code does."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from client.site import SiteSettings
from common.plan import Plan, parse_plan
from common.plan_training import Augmentation
from tests.client.test_cli import APPS, commands

ROOT = Path(__file__).resolve().parents[1]
PLAN_MD = (ROOT / "docs" / "plan.md").read_text(encoding="utf-8")
NESTED = {"training.augmentation": Augmentation}
SECTIONS = {
    field.name: typing.get_type_hints(Plan)[field.name] for field in dataclasses.fields(Plan)
} | NESTED
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| ?(.*?) ?\|$", re.MULTILINE)


def documented(section: str) -> dict[str, tuple[str, str, str]]:
    """Key to (meaning, default, example) of one section of docs/plan.md."""
    found = re.search(rf"^## `\[{re.escape(section)}\]`.*?(?=^## |\Z)", PLAN_MD, re.MULTILINE | re.DOTALL)
    assert found, f"docs/plan.md has no section [{section}]"
    return {key: (meaning, default, example) for key, meaning, default, example in ROW.findall(found[0])}


def toml(cell: str) -> object:
    """The value a table cell shows, read as TOML; an ellipsis stands for left-out text."""
    return tomllib.loads(f"v = {cell.strip('`')}")["v"]


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_key_of_the_plan_is_documented_and_no_other(section: str) -> None:
    assert list(documented(section)) == [field.name for field in dataclasses.fields(SECTIONS[section])]


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_documented_default_is_the_real_one(section: str) -> None:
    for field in dataclasses.fields(SECTIONS[section]):
        _, default, _ = documented(section)[field.name]
        if dataclasses.is_dataclass(typing.get_type_hints(SECTIONS[section])[field.name]):
            continue  # a section of its own, with a table of its own
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            assert default == "required", field.name
            continue
        made = field.default_factory() if field.default is dataclasses.MISSING else field.default
        shown = None if default == "none" else toml(default)
        assert shown == (list(made) if isinstance(made, tuple) else made), field.name


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_example_is_a_value_the_key_takes(section: str) -> None:
    hints = typing.get_type_hints(SECTIONS[section], include_extras=True)
    for key, (_, _, example) in documented(section).items():
        if example:
            TypeAdapter(hints[key]).validate_python(toml(example))


def test_the_whole_plan_shown_is_a_good_plan() -> None:
    block = re.search(r"```toml\n(.*?)```", PLAN_MD, re.DOTALL)
    assert block
    assert parse_plan(block[1]).private


def test_the_example_site_toml_is_a_good_one_and_shows_every_key() -> None:
    raw = tomllib.loads((ROOT / "deploy" / "site.example.toml").read_text(encoding="utf-8"))
    settings = TypeAdapter(SiteSettings).validate_python(raw)
    for section in ("site", "policy"):
        names = {field.name for field in dataclasses.fields(getattr(settings, section))}
        assert set(raw[section]) == names


DOCUMENTS = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"\[[^\]]+\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


ROOMS = ("common", "client", "server", "simulations", "deploy")
WRITTEN = {".py", ".md", ".html", ".js", ".toml", ".sh", ".service", ".yaml"}
TYPED = re.compile(r"(consilium-(?:site|server|sim)) ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


def test_every_command_that_is_named_can_be_typed() -> None:
    """In documents, messages, pages and units: a remedy that names a command of yesterday helps nobody."""
    known = {
        (name, *words[1:end])
        for name, group in APPS.items()
        for words in commands(name, group)
        for end in (2, 3)
    }
    groups = {one[:2] for one in known if len(one) > 2}
    places = [
        *DOCUMENTS,
        *(path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in WRITTEN),
    ]
    wrong = []
    for path in places:
        for name, first, second in TYPED.findall(path.read_text(encoding="utf-8")):
            typed = (name, first, second) if second and (name, first) in groups else (name, first)
            if typed not in known:
                wrong.append(f"{path.relative_to(ROOT)}: {' '.join(typed)}")
    assert not wrong


def rooms_and_tests_named(text: str) -> set[str]:
    """Every path in backticks that lies in a room, in tests/ or in docs/."""
    return set(re.findall(r"`((?:common|client|server|simulations|tests|docs|deploy)/[\w./-]+)`", text))


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "SECURITY.md"])
def test_every_module_named_is_there(name: str) -> None:
    """A map that names a house that was pulled down is worse than none."""
    missing = []
    for path in sorted(rooms_and_tests_named((ROOT / name).read_text(encoding="utf-8"))):
        at = ROOT / path
        if not (at.exists() or at.with_suffix(".py").exists()):
            missing.append(path)
    assert not missing


def test_every_module_stands_on_the_map() -> None:
    """ARCHITECTURE.md names every module of every room, at least by its folder."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = rooms_and_tests_named(text)
    unnamed = []
    for room in ("common", "client", "server", "simulations"):
        for path in (ROOT / room).iterdir():
            if path.suffix != ".py" and not any(path.glob("*.py")):
                continue
            if path.stem.startswith("__"):
                continue
            relative = f"{room}/{path.stem}"
            if not {relative, f"{relative}.py", f"{relative}/"} & named:
                unnamed.append(relative)
    assert not unnamed
