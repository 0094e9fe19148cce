"""`consilium-server survey`: hospitals compared before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from common.cli import JsonFlag, grid, say, show
from common.errors import InputError, PlanError, Problem
from server.commands.options import HERE, Folder

if TYPE_CHECKING:
    from common.plan import Plan
    from server.analytics.records import AnalysisRecord


def survey(
    plan: Annotated[Path, typer.Argument(help="The plan of an analysis: analytics.survey = true.")],
    folder: Folder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Queue an analysis that was released; once it is done, show what it predicts and where its page is.

    Hospitals approve it like a study. `start` carries it out; type the same again to see how it stands.
    """
    from common.plan import load_plan
    from server.federation_folder import Consortium
    from server.journal import COMPLETED
    from server.runs import study_of, submit

    read, consortium = load_plan(plan), Consortium.open(folder)
    checked(read, plan.name)
    known = study_of(consortium.folder, read)
    if known is not None and known.state == COMPLETED:
        shown(consortium.folder / "runs" / known.name, as_json=as_json)
        return
    study = known if known is not None and known.state in ("queued", "running") else submit(consortium, read)
    show(study, as_json, lambda: f"{study.name} is {study.state}; type the same again for what it found")


def checked(plan: Plan, name: str) -> None:
    """Refuse a plan that is no analysis, or whose sum could never be opened.

    Raises:
        PlanError: with what is wrong.
    """
    from common.analytics import LEAST, summed_of

    problems = []
    if not plan.surveys:
        problems.append(Problem("analytics.survey", "the plan is no analysis", "Set survey = true"))
    strangers = sorted(set(plan.analytics.own) - set(plan.federation.sites or plan.analytics.own))
    if strangers:
        rule = f"{', '.join(strangers)} is not among federation.sites"
        problems.append(Problem("analytics.own", rule, "Name it there too, or take it out"))
    if plan.federation.sites and 0 < len(summed_of(plan, ())) < LEAST:
        rule = f"fewer than {LEAST} hospitals would be summed, and of two each knows the other's part"
        problems.append(Problem("analytics.own", rule, "Let more be summed, or let all show their own cells"))
    if problems:
        raise PlanError(name, problems)


def shown(home: Path, *, as_json: bool) -> None:
    """Tell what an analysis in this folder predicts, write its page, and say where that is.

    Raises:
        InputError: there is no record of one.
    """
    from server.analytics.page import PAGE, write_page
    from server.analytics.records import read_analysis
    from server.analytics.run import RECORD
    from server.analytics.trouble import predicted

    if not (home / RECORD).exists():
        raise InputError(
            home.name, "it holds no analysis", "Look at `consilium-server runs` for how it ended"
        )
    record = read_analysis(home / RECORD)
    write_page(record, home / PAGE)
    result = {"record": record, "troubles": predicted(record), "page": home / PAGE}
    show(result, as_json, lambda: table(record))
    say(f"Open {home / PAGE} in a browser.")


def table(record: AnalysisRecord) -> Table:
    """What is predicted, a line each."""
    from server.analytics.trouble import predicted

    rows = [(one.title, one.seen) for one in predicted(record)]
    missing = f"; without {', '.join(record.missing)}" if record.missing else ""
    there = len({site for part in record.parts for site in part.sites})
    title = f"{record.study}: {there} hospitals counted{missing}"
    return grid(title, ("to expect", "seen"), rows or [("no trouble seen", "")])
