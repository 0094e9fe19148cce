"""How every command line of Consilium speaks and ends.

Results go to stdout, as a table for people or as one JSON document with `--json`; progress and errors go to
stderr. A `ConsiliumError` ends the command with its message and its exit status. Anything else is
our own mistake: it is named by type and place only, because its text may hold a patient. With `--json` an error
is a document on stdout too, `{"error": {"code", "subject", "rule", "remedy", "exit_status"}}`, so that whoever
reads it never meets nothing.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import click
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from typer.core import TyperGroup

from common.errors import ConsiliumError

EXIT_INTERNAL: Final = 70
"""Exit status of a mistake of ours; EX_SOFTWARE of sysexits.h."""
EXIT_STOPPED: Final = 130
"""Exit status of a command that was stopped by Ctrl-C; 128 and the signal's number, as shells have it."""

_AS_JSON: Final = "consilium.json"
_SHOWN: Final = "consilium.shown"
_OUR_ROOMS: Final = ("common", "client", "server", "simulations")
_ROOT: Final = Path(__file__).resolve().parents[1]

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Report = Callable[[int, int], None]
"""Progress: called with (done, total)."""


@dataclasses.dataclass(frozen=True)
class _Told:
    """An error as JSON tells it."""

    code: str
    subject: str
    rule: str
    remedy: str
    exit_status: int


class Border(TyperGroup):
    """The group of commands at whose edge every error becomes one message and one exit status."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether JSON was asked for, of whichever command; have a terminal without ε show a question mark."""
        ctx.meta.setdefault(_AS_JSON, "--json" in args)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of ours speak for themselves, foreign ones lose their text."""
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except click.ClickException as error:
            _tell(ctx, _Told("usage", self.name or "", error.format_message(), "See --help", error.exit_code))
            raise
        except click.Abort:
            _tell(ctx, _Told("aborted", self.name or "", "a question was not answered", "See --help", 1))
            raise
        except KeyboardInterrupt:
            say("stopped before its end")
            _tell(
                ctx,
                _Told("stopped", self.name or "", "it was stopped before its end", "Repeat it", EXIT_STOPPED),
            )
            raise click.exceptions.Exit(EXIT_STOPPED) from None
        except ConsiliumError as error:
            say(f"error: {error}")
            _tell(ctx, _Told(error.code, error.subject, error.rule, error.remedy, error.exit_status))
            raise click.exceptions.Exit(error.exit_status) from None
        except Exception as error:  # noqa: BLE001 - the border; nothing foreign passes with its text
            what = f"an unexpected {type(error).__name__} at {place_of(error)}"
            say(
                f"error: {what}. Its text is withheld, because it may name a patient. Please report this line."
            )
            _tell(ctx, _Told("internal", self.name or "", what, "Please report this line", EXIT_INTERNAL))
            raise click.exceptions.Exit(EXIT_INTERNAL) from None


def _tell(ctx: click.Context, error: _Told) -> None:
    """The error as a document on stdout, where JSON was asked for and none is there yet."""
    if ctx.meta.get(_AS_JSON) and not ctx.meta.get(_SHOWN):
        ctx.meta[_SHOWN] = True
        click.echo(json.dumps({"error": plain(error)}, indent=1, sort_keys=True))


def make_app(help_text: str) -> typer.Typer:
    """A command-line program behind the border; subcommands are added with `@app.command`."""
    return typer.Typer(
        cls=Border,
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )


def example(command: str) -> str:
    """The epilog of a command: how it is typed."""
    return f"Example: [bold]{command}[/bold]"


def say(text: str) -> None:
    """One message for the person at the terminal, on stderr, never marked up."""
    click.echo(text, err=True)


def show(result: object, as_json: bool, table: Callable[[], Table | str]) -> None:
    """Print a result on stdout: as one JSON document, or as the table `table()` draws."""
    if as_json:
        if (ctx := click.get_current_context(silent=True)) is not None:
            ctx.meta[_SHOWN] = True
        click.echo(json.dumps(plain(result), indent=1, sort_keys=True, allow_nan=False))
        return
    drawn = table()
    # A file or a pipe gets the whole row; only a terminal's width may wrap it.
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(drawn, highlight=False, markup=False, soft_wrap=isinstance(drawn, str))


def plain(value: object) -> Any:
    """A result as JSON values: dataclasses become objects, paths become text.

    JSON (RFC 8259) has no number without an end: as in Protocol Buffers' mapping, it becomes `"Infinity"` or `"NaN"`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


def grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table with one row a line, broken where the screen is narrow and never cut; None shows as a dash."""
    heads = [Column(name, overflow="fold") for name in columns]
    table = Table(*heads, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    return table


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """A progress bar on stderr where stderr is a terminal; call what it yields with (done, total)."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def place_of(error: BaseException) -> str:
    """`room/file.py:line` of the innermost frame in our own code; no text of the error."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] in _OUR_ROOMS:
            return f"{path.relative_to(_ROOT)}:{frame.lineno}"
    return "an unknown place"
