"""Flower's ServerApp: reads where plan and result lie, and hands over to `server.rounds`.

Run configuration (`[tool.flwr.app.config]`); values on the command line are not signed, so they say
only where things are, never what is done:

plan         path of plan.toml; empty: the plan in the virtual federation's folder, or the one in the bundle
federation   folder of a virtual federation; empty in a deployment, and with an empty plan too a
             small virtual federation is made by whoever registered for it
out          folder for the result; empty: `runs/<run>` in the federation's folder
consortium   folder of the server's key and of the ledger heads it has seen, the same for every run of a
             federation; empty: `consortium` in a virtual federation's folder, else the folder `out` lies in
nodes        number of nodes to wait for; 0: those of the plan, and whoever else is there
turns        number of sites that share one machine and work in turn, so that a round may take as long
             as all of them together; 0: every site has a machine of its own, or, in a virtual
             federation, all share this one
"""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.errors import FederationError
from common.logs import configure_ours
from common.plan import load_plan
from server.analytics.run import run_analysis
from server.exchange import nodes_present
from server.records import FederationRecord
from server.rounds import run_federation
from server.seals import sealed
from server.start import Options
from server.streaming import streamed

app = ServerApp()  # a plain assignment: Flower reads the source for it
VIRTUAL_FEDERATION: Final = "consilium.virtual_federation"
"""Entry points of this group are called with a number of sites and give (folder, plan path)."""
_BUNDLED: Final = Path(__file__).resolve().parents[1] / "plan.toml"
"""In the app bundle of a release: the plan that hospitals approved with it."""
_START_S: Final = 60.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Carry out one run; raises what ended it, so that Flower too counts the run as failed."""
    configure_ours()
    config = context.run_config
    federation, plan_path = _where(grid, str(config["federation"]), str(config["plan"]))
    out = _out(str(config["out"]), federation, context.run_id)
    options = Options(
        consortium=_consortium(str(config["consortium"]), federation),
        nodes=int(config["nodes"]),
        turns=int(config["turns"]),
        virtual=str(federation) if federation else "",
    )
    grid = sealed(streamed(grid, out), options.consortium)
    plan = load_plan(plan_path)
    record = (run_analysis if plan.surveys else run_federation)(grid, plan, out, options)
    if not config["out"]:
        # Flower shows its own logger's lines to whoever typed `flwr run`; ours are for machines.
        logging.getLogger("flwr").info("%s\nThe result is in %s", summary(record), out)


def summary(record: FederationRecord) -> str:
    """How a run went, in a few lines: who trained, and what the model reached where."""
    word = "SUBSET: " if record.subset else ""
    drawn = " they were drawn for" if any(one.chosen for one in record.rounds) else ""
    lines = [f"{word}{len(record.trained)} of {len(record.expected)} sites trained in every round{drawn}"]
    for site, metrics in record.sites.items():
        for model in metrics.models:
            area = model.groups[0].auroc if model.groups else None
            told = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})" if area else "suppressed"
            lines.append(f"  {site}, {model.model}: AUROC {told}")
    return "\n".join(lines)


def _where(grid: Grid, federation: str, plan: str) -> tuple[Path | None, Path]:
    """The virtual federation's folder, if there is one, and the plan's path."""
    if federation:
        folder = Path(federation)
        return folder, Path(plan) if plan else folder / "plan.toml"
    if plan:
        return None, Path(plan)
    if _BUNDLED.exists():
        return None, _BUNDLED
    nodes = nodes_present(grid, 1, _START_S, exact=False)
    folder, path = _prepare()(len(nodes))
    return Path(folder), Path(path)


def _prepare() -> Any:
    found = sorted(entry_points(group=VIRTUAL_FEDERATION), key=lambda point: point.name)
    if not found:
        raise FederationError(
            "run configuration",
            "it names neither a plan nor a virtual federation",
            "Give plan='...' or federation='...' with -c, or install the simulations",
            code="no-plan",
        )
    return found[0].load()


def _consortium(folder: str, federation: Path | None) -> Path | None:
    if folder:
        return Path(folder)
    return None if federation is None else federation / "consortium"


def _out(out: str, federation: Path | None, run_id: int) -> Path:
    if out:
        return Path(out)
    if federation is None:
        raise FederationError(
            "run configuration", "it names no folder for the result", "Give out='...' with -c", code="no-out"
        )
    return federation / "runs" / f"flwr-{run_id}"
