"""What a hospital types: helpful, quick, one message and one exit status when something is wrong."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from client.cli import app as site_app
from client.privacy.ledger import Ledger
from client.site import init_site
from client.socket import healthy
from common.cli import EXIT_INTERNAL, example, grid, make_app, plain
from common.errors import ConsiliumError, PlanError, PolicyRefused, PrivacyRefused, Problem, StorageError
from server.cli import app as server_app
from simulations.cli import app as sim_app

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
APPS = {"consilium-site": site_app, "consilium-server": server_app, "consilium-sim": sim_app}


def commands(name: str, group: typer.Typer) -> list[tuple[str, ...]]:
    """Every command of a program, as the words that are typed."""
    return [(name, *words) for words in below(typer.main.get_command(group))]


def below(command: click.Command) -> list[tuple[str, ...]]:
    """The words that lead from a command to its leaves."""
    if not isinstance(command, click.Group):
        return [()]
    return [(name, *rest) for name, inner in command.commands.items() for rest in below(inner)]


ALL = [words for name, app in APPS.items() for words in commands(name, app)]


def run(*words: str | Path, **environ: str):
    """Type a command in this process."""
    return CliRunner().invoke(APPS[str(words[0])], [str(word) for word in words[1:]], env=environ)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(words: tuple[str, ...]) -> None:
    result = run(*words, "--help", COLUMNS="200")
    assert result.exit_code == 0
    assert f"Example: {' '.join(words)}" in result.output


STAYING = ("serve", "start", "connect", "courier")
"""Commands that stay until they are told to stop; they have no result."""
TOLD_BY_STATUS = ("alive", "sbom")
"""One answers by its exit status alone, and one writes a JSON document of its own."""


@pytest.mark.parametrize("words", [w for w in ALL if w[-1] not in STAYING + TOLD_BY_STATUS], ids=" ".join)
def test_every_command_that_prints_a_result_can_print_it_as_json(words: tuple[str, ...]) -> None:
    assert "--json" in run(*words, "--help", COLUMNS="200").output


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_argument_says_what_it_is(words: tuple[str, ...]) -> None:
    """An argument's help is lost under some releases of the libraries below."""
    group = typer.main.get_command(APPS[words[0]])
    for word in words[1:]:
        group = group.commands[word]  # type: ignore[attr-defined] - a group until the last word
    for parameter in group.params:
        text = parameter.get_help_record(typer.Context(group))
        assert parameter.name == "help" or (text and text[1].strip()), parameter.name


def test_init_makes_a_site_with_keys_only_the_owner_reads(tmp_path) -> None:
    result = run("consilium-site", "init", "st-anna", "--site", tmp_path / "s", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["site"] == "st-anna"
    for key in ("pseudonym.key", "spend.key"):
        path = tmp_path / "s" / "secrets" / key
        assert path.stat().st_mode & 0o077 == 0
        assert path.read_bytes().hex() not in result.output


def test_init_twice_is_refused_and_keeps_the_first_keys(tmp_path) -> None:
    run("consilium-site", "init", "a", "--site", tmp_path)
    before = (tmp_path / "secrets" / "spend.key").read_bytes()
    result = run("consilium-site", "init", "a", "--site", tmp_path)
    assert result.exit_code == 2
    assert "already holds a site" in result.stderr
    assert (tmp_path / "secrets" / "spend.key").read_bytes() == before


def test_status_of_an_empty_site_is_all_zeros(tmp_path) -> None:
    run("consilium-site", "init", "a", "--site", tmp_path)
    status = json.loads(run("consilium-site", "status", "--site", tmp_path, "--json").stdout)
    assert (status["patients"], status["images"], status["epsilon_spent"]) == (0, 0, None)
    assert status["policy"]["min_cell"] == 11


def test_status_prints_a_table_when_no_json_is_asked_for(tmp_path) -> None:
    run("consilium-site", "init", "a", "--site", tmp_path)
    result = run("consilium-site", "status", "--site", tmp_path)
    assert "Site a" in result.stdout
    assert "policy: fewest patients in a figure" in result.stdout


def test_the_site_can_come_from_the_environment(tmp_path) -> None:
    init_site(tmp_path, "a")
    result = run("consilium-site", "status", "--json", CONSILIUM_SITE=str(tmp_path))
    assert json.loads(result.stdout)["site"] == "a"


def test_a_folder_without_a_site_is_an_input_error_on_stderr(tmp_path) -> None:
    result = run("consilium-site", "status", "--site", tmp_path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "site.toml" in result.stderr
    assert "init" in result.stderr


def explained(*arguments: str) -> list[dict[str, str]]:
    return json.loads(run("consilium-site", "deid", "explain", *arguments, "--json").stdout)


def test_deid_explain_knows_kept_removed_and_private_attributes() -> None:
    assert explained("PatientName")[0]["treatment"] == "replaced"
    assert explained("(0010,0010)") == explained("PatientName")
    assert explained("OperatorsName")[0]["treatment"] == "removed"
    assert explained("(0009,1001)")[0]["treatment"] == "removed"


def test_deid_explain_of_nothing_lists_all_and_ends_with_the_default() -> None:
    rows = explained()
    assert len(rows) > 700
    assert rows[-1]["action"] == "removed"


def test_no_cell_of_a_table_is_cut_however_narrow_the_screen() -> None:
    """An attribute or an identifier without its end is of no use to whoever must check it."""
    word = "PerFrameFunctionalGroupsSequence"
    screen = io.StringIO()
    Console(width=24, file=screen, color_system=None).print(grid("t", ("attribute", "n"), [(word, 1)]))
    lines = screen.getvalue().splitlines()
    assert "".join(line[1:].split("│")[0].strip() for line in lines if line.startswith("│")) == word


def test_deid_explain_refuses_what_dicom_does_not_know() -> None:
    result = run("consilium-site", "deid", "explain", "PatientNam")
    assert result.exit_code == 2
    assert "PatientNam" in result.stderr


# The border


def failing(error: Exception):
    """A program whose one command fails, run to its end."""
    app = make_app("A test.")

    @app.callback()
    def _root() -> None:
        """Have subcommands."""

    @app.command("fail", epilog=example("x fail"))
    def _fail() -> None:
        raise error

    return CliRunner().invoke(app, ["fail"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PlanError("plan.toml", [Problem("a.b", "is wrong", "mend it")]), 2),
        (StorageError("store", "the disk is full", "free some"), 2),
        (PolicyRefused("plan", "too much", "ask for less"), 4),
        (PrivacyRefused("ledger", "is spent", "stop"), 5),
        (ConsiliumError("x", "y", "z"), 1),
    ],
)
def test_an_error_of_ours_is_its_own_message_and_status(error: ConsiliumError, status: int) -> None:
    result = failing(error)
    assert result.exit_code == status
    assert result.stderr == f"error: {error}\n"
    assert "Traceback" not in result.output


@pytest.mark.parametrize("error", [ValueError, OSError, KeyError, RecursionError, MemoryError])
def test_a_foreign_error_loses_its_text(error: type[Exception]) -> None:
    result = failing(error("Canary^Maria in /mnt/pacs/canary.dcm"))
    assert result.exit_code == EXIT_INTERNAL
    assert "anary" not in result.output
    assert error.__name__ in result.stderr
    assert "Traceback" not in result.output


def test_an_option_nobody_knows_is_a_usage_error() -> None:
    assert run("consilium-site", "status", "--nonsense").exit_code == 2


def test_markup_in_a_name_is_printed_as_it_is() -> None:
    """A label or folder in brackets must not vanish or colour the terminal."""
    assert failing(StorageError("[red]x[/red]", "[bold]", "[link]")).stderr.count("[") == 4


def test_json_values_are_plain_and_hide_what_a_repr_hides(tmp_path) -> None:
    site = plain(init_site(tmp_path, "a"))
    assert "spend_key" not in site
    assert site["folder"] == str(tmp_path)
    json.dumps(site)


# Real processes


def test_a_real_process_fails_without_a_traceback(tmp_path) -> None:
    result = subprocess.run(
        [BIN / "consilium-site", "status", "--site", tmp_path], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_serve_listens_until_it_is_told_to_stop(tmp_path, end: signal.Signals) -> None:
    Ledger.create(init_site(tmp_path, "a").ledger).close()
    path = tmp_path / "s.sock"
    with subprocess.Popen(
        [BIN / "consilium-site", "serve", "--site", tmp_path, "--socket", path],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stderr is not None
        said = [process.stderr.readline(), process.stderr.readline()]
        assert "share an account" in said[0]
        assert "listens" in said[1]
        assert healthy(path, 60.0)
        process.send_signal(end)
        assert "stopped" in process.stderr.read()
    assert process.returncode == 0
