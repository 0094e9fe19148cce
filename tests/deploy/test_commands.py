"""Every command that the runbook, a container or a unit gives is one of the real programs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from client.cli import app as site
from server.cli import app as server
from simulations.cli import app as sim
from tests.deploy.files import ROOT, UNITS, command_lines

PROGRAMS = {
    name: typer.main.get_command(app)
    for name, app in (("consilium-site", site), ("consilium-server", server), ("consilium-sim", sim))
}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(consilium-(?:site|server|sim) [^`\n]+)`")


def check(words: list[str]) -> None:
    """Walk to the command and have it read its words; nothing is run.

    Raises:
        click.UsageError: no such command or option, a word too many or too few.
    """
    command: click.Command = PROGRAMS[words[0]]
    context = click.Context(command, info_name=words[0])
    rest = words[1:]
    while isinstance(command, click.Group):
        assert rest, f"{words}: which command?"
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"no command {rest[0]}")
        context = click.Context(found, info_name=rest[0], parent=context)
        command, rest = found, rest[1:]
    given, left, _ = command.make_parser(context).parse_args(list(rest))
    if left:
        raise click.UsageError(f"a word too many: {left}")
    for parameter in command.params:
        if parameter.required and not isinstance(given.get(parameter.name), (str, tuple, list)):
            raise click.UsageError(f"{parameter.name} is missing")


def runbook_lines() -> list[str]:
    """Each command of ours in the runbook's blocks and sentences."""
    lines = [line.strip() for block in BLOCK.findall(RUNBOOK) for line in block.splitlines()]
    return sorted({line for line in [*lines, *INLINE.findall(RUNBOOK)] if line.startswith("consilium-")})


NAMES_ALONE = {("consilium-site", "approve")}
"""Commands that a sentence names without what they have to be told."""


@pytest.mark.parametrize("line", runbook_lines())
def test_a_command_of_the_runbook_is_a_real_one(line: str) -> None:
    words = shlex.split(line)
    if (words[0], words[-1]) in NAMES_ALONE:
        return
    check(words)


@pytest.mark.parametrize(
    ("where", "words"), command_lines(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_command_that_is_started_is_a_real_one(where: str, words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize(
    "words",
    [
        "consilium-site strat",
        "consilium-site serve --sight x",
        "consilium-site courier",
        "consilium-site sbom more",
    ],
)
def test_a_wrong_word_is_seen(words: str) -> None:
    with pytest.raises(click.UsageError):
        check(words.split())


def test_every_program_in_a_unit_or_image_starts(tmp_path: Path) -> None:
    """Once for each: the installed program itself, not the module behind it."""
    for name in ("consilium-site", "consilium-server"):
        done = subprocess.run(
            [Path(sys.executable).with_name(name), "--help"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr


def test_the_runbook_names_every_unit_and_what_make_knows() -> None:
    assert all(path.stem in RUNBOOK for path in UNITS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", RUNBOOK):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize(
    "chapter",
    [
        "Install",
        "Enrol",
        "Renew",
        "Back up and restore",
        "Upgrade",
        "Revoke a hospital",
        "Leave the federation",
        "Incident",
    ],
)
def test_the_runbook_has_its_chapters(chapter: str) -> None:
    assert f"\n## {chapter}\n" in RUNBOOK
