"""`consilium-server`: what the consortium types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.bill import sbom
from common.cli import JsonFlag, example, grid, make_app, say, show
from common.errors import InputError
from common.logs import configure
from server.commands import audit, members, survey, track, watch
from server.commands import start as starting
from server.commands.options import HERE, Folder

if TYPE_CHECKING:
    from common.plan import Plan
    from server.records import RunRecord

app = make_app("The consortium's side: check a plan, run a federation, write its report, verify its log.")
app.add_typer(audit.group, name="audit")
app.command("init", epilog=example("consilium-server init lungs --address consilium.example:443"))(
    members.init
)
app.command("invite", epilog=example("consilium-server invite st-anna --kit st-anna-kit.zip"))(members.invite)
app.command("admit", epilog=example("consilium-server admit st-anna"))(members.admit)
app.command("list", epilog=example("consilium-server list"))(members.list_)
app.command("revoke", epilog=example("consilium-server revoke st-anna"))(members.revoke)
app.command("renew", epilog=example("consilium-server renew"))(members.renew)

app.command("start", epilog=example("consilium-server start --folder /srv/consortium"))(starting.start)
app.command("alive", epilog=example("consilium-server alive --folder /srv/consortium"))(starting.alive)
app.command("submit", epilog=example("consilium-server submit plan.toml --folder /srv/consortium"))(
    starting.submit
)
app.command("survey", epilog=example("consilium-server survey plan.toml --folder /srv/consortium"))(
    survey.survey
)
app.command("runs", epilog=example("consilium-server runs --folder /srv/consortium"))(starting.studies)
app.command("sbom", epilog=example("consilium-server sbom --out sbom.json"))(sbom)

app.command("status", epilog=example("consilium-server status --folder /srv/consortium"))(watch.status)
app.command("dashboard", epilog=example("consilium-server dashboard --folder /srv/consortium"))(
    watch.dashboard
)

app.command("track", epilog=example("consilium-server track --folder /srv/consortium"))(track.track)

PlanFile = Annotated[Path, typer.Argument(help="The study plan, a TOML file; docs/plan.md has every key.")]


@app.command("check-plan", epilog=example("consilium-server check-plan plan.toml"))
def check_plan(plan: PlanFile, as_json: JsonFlag = False) -> None:
    """Read a plan whole; print its digest, or every mistake at once."""
    from common.plan import as_dict, load_plan

    read = load_plan(plan)
    _check_network(read, plan.name)
    result = {"plan": plan.name, "digest": read.digest, "private": read.private, "values": as_dict(read)}
    rows = [("study", read.study.name), ("digest", read.digest), ("network", read.model.name)]
    rows += [
        ("privacy", f"ε ≤ {read.privacy.epsilon:g}, δ = {read.privacy.delta:g}" if read.private else "none")
    ]
    show(result, as_json, lambda: grid(f"{plan.name} is a good plan", ("what", "value"), rows))


@app.command("run", epilog=example("consilium-server run plan.toml --federation virtual/ --out runs/first"))
def run(
    plan: PlanFile,
    federation: Annotated[Path, typer.Option(help="Folder of a virtual federation: one site folder each.")],
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    as_json: JsonFlag = False,
) -> None:
    """Run a plan through Flower on a virtual federation; the exit status says truly how it ended."""
    from common.plan import load_plan
    from server.journal import read_federation
    from server.launch import Launch, flwr_run

    load_plan(plan)
    status = flwr_run(Launch(_checkout(), plan, federation, out, say))
    if status:
        raise typer.Exit(status)
    record = read_federation(out / "federation.json")
    rows = [("run", record.run), ("status", record.status), ("rounds", len(record.rounds))]
    rows += [("trained", ", ".join(record.trained)), ("sites", "subset" if record.subset else "all expected")]
    show(
        record, as_json, lambda: grid(f"{plan.name} at {len(record.trained)} sites", ("what", "value"), rows)
    )


@app.command("release", epilog=example("consilium-server release plan.toml --folder /srv/consortium"))
def release(
    plan: PlanFile,
    folder: Folder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Bundle the installed code with a plan, sign both, and offer them to the hospitals for approval."""
    from common.plan import load_plan
    from server.federation_folder import Consortium
    from server.release import FOLDER, released

    read = load_plan(plan)
    _check_network(read, plan.name)
    consortium = Consortium.open(folder)
    made = released(consortium, read)
    rows = [("id", made.id), ("plan", made.plan_digest), ("bundle", made.bundle_digest)]
    rows += [("code", made.code_digest), ("consilium", made.consilium), ("made", made.at)]
    rows += [("folder", str(consortium.folder / FOLDER / made.id))]
    rows += [("next", "Hospitals see it with `consilium-site studies` and approve it by its id")]
    show(made, as_json, lambda: grid(f"{read.study.name} is released", ("what", "value"), rows))


@app.command("report", epilog=example("consilium-server report /srv/consortium/runs/pneumonia-1"))
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a study or run, or the metrics.json of a run.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; report.html in its folder by default.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write the consortium's report of a study that completed, or of a simulated run."""
    from server.reports.consortium import write_report

    record, folder = _record(run), run if run.is_dir() else run.parent
    target = out or folder / "report.html"
    write_report(record, target)
    show({"report": target}, as_json, lambda: f"Wrote {target}")


def _check_network(plan: Plan, name: str) -> None:
    """Build the plan's network once: only it knows its options, and whether noise and it go together.

    Raises:
        PlanError: with every mistake.
    """
    from common.errors import PlanError, Problem
    from common.models import build, dp_problems

    rows, columns = plan.input.shape[-2:]
    try:
        net = build(plan.model, plan.task.outputs, (rows, columns))
    except PlanError as error:
        raise PlanError(name, error.problems) from None
    unsafe = dp_problems(net) if plan.private else []
    if unsafe:
        remedy = "Choose another network or another trainable part"
        raise PlanError(name, [Problem("model", reason, remedy) for reason in unsafe])


def _checkout() -> Path:
    folder = Path(__file__).resolve().parents[1]
    if not (folder / "pyproject.toml").is_file():
        raise InputError(
            "consilium-server run", "Flower needs the checkout to run from", "Install with `pip install -e .`"
        )
    return folder


def _record(run: Path) -> RunRecord:
    """The record of a simulated run; of a federation's study it is made here, and kept as metrics.json."""
    from pydantic import ValidationError

    from server.records import read_record, write_record
    from server.study_record import record_of

    metrics = run / "metrics.json" if run.is_dir() else run
    if (run / "federation.json").is_file():
        record = record_of(run)
        write_record(record, metrics)
        return record
    try:
        return read_record(metrics)
    except (OSError, ValidationError):
        raise InputError(
            run.name, "it is not the record of a run", "Give the folder of a study, or of a run that ended"
        ) from None


def main() -> None:
    """Run `consilium-server` with the arguments of this process."""
    configure("WARNING")
    app(prog_name="consilium-server")


if __name__ == "__main__":
    main()
