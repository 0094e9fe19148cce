"""Does a machine that reads `--json` always get one document and a status, and a poor terminal its words?"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from client.cli import app as site_app
from common.cli import JsonFlag, make_app, plain, show
from common.errors import ConsiliumError, PolicyRefused, StorageError
from server.cli import app as server_app


def strictly(text: str):
    """One document by RFC 8259, which knows neither NaN nor Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def invoked(body, *arguments: str):
    """A program with one command in a group, run to its end."""
    app, group = make_app("A test."), make_app("A group.")

    @group.callback()
    def _root() -> None:
        """Have subcommands."""

    @group.command("do")
    def _do(number: int = 0, as_json: JsonFlag = False) -> None:
        body(number, as_json)

    app.add_typer(group, name="group")
    return CliRunner().invoke(app, ["group", "do", *arguments])


def _raises(error: BaseException):
    def body(_number: int, _as_json: bool) -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (PolicyRefused("plan", "too much", "ask for less", code="clip"), "clip", 4),
        (StorageError("store", "the disk is full", "free some"), "storage", 2),
        (ValueError("Canary^Maria"), "internal", 70),
    ],
)
def test_an_error_is_a_document_too_where_json_was_asked_for(error, code: str, status: int) -> None:
    result = invoked(_raises(error), "--json")
    told = strictly(result.stdout)["error"]
    assert (told["code"], told["exit_status"], result.exit_code) == (code, status, status)
    assert set(told) == {"code", "subject", "rule", "remedy", "exit_status"}
    assert all(told[key] for key in ("subject", "rule", "remedy"))
    assert result.stderr.startswith("error: ")
    assert "anary" not in result.output


def test_what_is_stopped_by_hand_says_so() -> None:
    result = invoked(_raises(KeyboardInterrupt()), "--json")
    assert (result.exit_code, result.stderr) == (130, "stopped before its end\n")
    assert strictly(result.stdout)["error"]["code"] == "stopped"
    assert invoked(_raises(KeyboardInterrupt())).stdout == ""


def test_without_json_an_error_leaves_stdout_empty() -> None:
    result = invoked(_raises(PolicyRefused("plan", "too much", "ask for less")))
    assert (result.stdout, result.exit_code) == ("", 4)


def test_a_mistyped_option_and_a_question_nobody_answered_are_documents_too() -> None:
    mistyped = invoked(lambda *_: None, "--number", "many", "--json")
    assert (strictly(mistyped.stdout)["error"]["code"], mistyped.exit_code) == ("usage", 2)
    unanswered = invoked(lambda *_: typer.confirm("Sure?", abort=True, err=True), "--json")
    assert (strictly(unanswered.stdout)["error"]["code"], unanswered.exit_code) == ("aborted", 1)


def test_a_result_that_was_shown_is_not_followed_by_a_second_document() -> None:
    def shown_then_failed(_number: int, as_json: bool) -> None:
        show({"spent": math.inf, "mean": math.nan}, as_json, lambda: "")
        raise ConsiliumError("x", "y", "z")

    result = invoked(shown_then_failed, "--json")
    assert strictly(result.stdout) == {"spent": "Infinity", "mean": "NaN"}
    assert result.exit_code == 1


def test_numbers_without_an_end_are_words_in_json() -> None:
    assert plain([math.inf, -math.inf, math.nan, 1.5]) == ["Infinity", "-Infinity", "NaN", 1.5]


@pytest.mark.parametrize(
    ("app", "arguments"),
    [
        (server_app, ["list", "--folder", "/nowhere"]),
        (server_app, ["invite", "A B", "--folder", "/nowhere"]),
        (server_app, ["audit", "verify", "/nowhere"]),
        (server_app, ["status", "--bogus"]),
        (site_app, ["studies", "--site", "/nowhere"]),
        (site_app, ["status", "--site", "/nowhere"]),
        (site_app, ["ledger", "verify", "--site", "/nowhere"]),
        (site_app, ["enrol", "/nowhere/kit.zip", "--site", "/nowhere"]),
    ],
)
def test_every_command_that_fails_says_so_in_json(app, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert strictly(result.stdout)["error"]["exit_status"] == result.exit_code
    assert result.exit_code


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_knows_few_letters_gets_its_table(encoding: str) -> None:
    """ε and ≤ are in tables and errors; an account with `LANG=de_DE.ISO-8859-1` must read them all the same."""
    code = (
        "from common.cli import grid, make_app, say, show\n"
        "app = make_app('A test.')\n"
        "@app.callback()\n"
        "def _root(): pass\n"
        "@app.command('do')\n"
        "def do():\n"
        "    say('spent \u03b5 \u2264 8')\n"
        "    show(None, False, lambda: grid('spent', ('\u03b5',), [('\u2264 8',), (None,)]))\n"
        "app()\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", code, "do"], capture_output=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert b"8" in done.stdout
    assert done.stderr.startswith(b"spent ")
    assert ("\u2264 8".encode() in done.stdout) == (encoding == "utf-8")
