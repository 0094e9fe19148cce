"""Starting the consortium's processes, and the studies they carry out."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, grid, say, show
from common.logs import configure
from server.commands.options import HERE, Folder


def start(
    folder: Folder = HERE,
    insecure_loopback: Annotated[
        bool, typer.Option(help="No TLS, for simulated hospitals on this machine only.")
    ] = False,
) -> None:
    """Start SuperLink, executor, api and edge, and carry out what is submitted; whatever ends is started again.

    Logs and status of each process are in run/processes/ in the folder.
    """
    from server.deployment import Start, serve
    from server.federation_folder import Consortium

    configure("INFO")
    consortium = Consortium.open(folder)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    say(f"{consortium.name} is started. Stop it with Ctrl-C.")
    serve(Start(consortium, insecure_loopback), lambda: not ended.is_set())
    say("Everything has stopped.")


def submit(
    plan: Annotated[Path, typer.Argument(help="The study plan, a TOML file.")],
    folder: Folder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Queue a released study; `start` carries it out, and carries it on after whatever went down."""
    from common.plan import load_plan
    from server.federation_folder import Consortium
    from server.runs import submit as queued

    study = queued(Consortium.open(folder), load_plan(plan))
    show(study, as_json, lambda: f"{study.name} is queued; its result comes into runs/{study.name}/")


def studies(folder: Folder = HERE, as_json: JsonFlag = False) -> None:
    """Every study that was submitted, and how it stands; a result on fewer sites says subset."""
    from server.runs import outcome
    from server.runs import studies as submitted

    rows = [(study.name, outcome(folder, study), study.attempts) for study in submitted(folder)]
    result = [dict(zip(("study", "state", "attempts"), row, strict=True)) for row in rows]
    show(result, as_json, lambda: grid("Studies", ("study", "state", "attempts"), rows))


def alive(folder: Folder = HERE) -> None:
    """Say by the exit status whether SuperLink and edge answer: 0 yes, 1 no; for health checks."""
    from server.deployment import Start, healthy
    from server.edge import answers
    from server.federation_folder import Consortium

    consortium = Consortium.open(folder)
    wrong = [
        *([] if healthy(Start(consortium)) else ["SuperLink"]),
        *([] if answers(consortium) else ["edge"]),
    ]
    if wrong:
        say(f"{' and '.join(wrong)} not answering.")
        raise typer.Exit(1)
