"""The privacy ledger: what it says, whether it is whole, and a copy for who has to check it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, example, grid, show

if TYPE_CHECKING:
    from client.privacy.ledger import Ledger
    from client.privacy.statement import Part, Statement
    from client.site import Site

group = typer.Typer(
    help="The privacy ledger: what patients have spent, and the proof of it.", no_args_is_help=True
)
_BAR = 20
"""Characters of a whole limit."""


@group.command("show", epilog=example("consilium-site ledger show"))
def show_ledger(site: SiteFolder = HERE, as_json: JsonFlag = False) -> None:
    """Show what the worst patient has spent against each limit, how spend is spread, and the ledger's head."""
    from client.privacy.statement import statement

    with _opened(site) as (loaded, ledger):
        found = statement(loaded, ledger)
    show(found, as_json, lambda: _table(found))


@group.command("verify", epilog=example("consilium-site ledger verify --against ledger-march.json"))
def verify(
    site: SiteFolder = HERE,
    against: Annotated[
        Path | None, typer.Option(help="An earlier export, which this ledger must still contain.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check every row, cohort, stored update and countersignature; ends with status 5 when one is not whole."""
    from client.privacy.statement import verify as verified

    with _opened(site) as (loaded, ledger):
        found = verified(loaded, ledger, against)

    def text() -> str:
        """The result in words."""
        signed = f"row {found.countersigned.sequence}" if found.countersigned else "none yet"
        told = f"{found.rows} rows and {found.updates} stored updates are whole; countersigned: {signed}"
        return told + (f"; contains the export's row {found.against.sequence}" if found.against else "")

    show(found, as_json, text)


@group.command("export", epilog=example("consilium-site ledger export ledger-march.json"))
def export(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    site: SiteFolder = HERE,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Include patients' spend keys; then the file must stay here.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write every row with its digest and the countersigned head as JSON; spend keys are left out."""
    from client.privacy.statement import export as exported
    from common.checkpoints import write_whole

    with _opened(site) as (loaded, ledger):
        values = exported(loaded, ledger, with_keys=with_keys)
    write_whole(path, json.dumps(values, indent=1, sort_keys=True).encode())
    found = {"file": path.name, "rows": len(values["rows"]), "with_keys": with_keys}
    warning = " It names patients by key." if with_keys else ""
    show(found, as_json, lambda: f"{len(values['rows'])} rows are in {path.name}.{warning}")


@group.command("trust", epilog=example("consilium-site ledger trust sha256:..."))
def trust(
    key: Annotated[
        str, typer.Argument(help="Fingerprint of the key that is pinned now; `ledger show` prints it.")
    ],
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Let go of the consortium's pinned key, so that its next one is taken; ask by telephone first."""
    from client.privacy.statement import trust as let_go
    from client.site import load_site
    from common.audit import AuditLog

    loaded = load_site(site)
    let_go(loaded, key)
    AuditLog(loaded.audit).append("server.unpinned", digest=key)
    told = "The key is let go of. The next countersignature pins a new one: compare its fingerprint then."
    show({"let_go": key}, as_json, lambda: told)


@contextmanager
def _opened(folder: Path) -> Iterator[tuple[Site, Ledger]]:
    from client.privacy.ledger import Ledger
    from client.site import load_site

    site = load_site(folder)
    with Ledger(site.ledger, simulated=site.simulated) as ledger:
        yield site, ledger


def _table(found: Statement) -> Table:
    rows: list[tuple[str, str]] = []
    for usage in found.usage:
        name = {"run": "costliest run", "year": "last 365 days", "lifetime": "for life"}[usage.span.value]
        told = f"{_bar(usage.share)} ε {usage.epsilon:.2f} of {usage.limit:g}"
        rows.append((f"worst patient, {name}", told + ("  WARNING: 80% spent" if usage.near else "")))
    if found.unbounded:
        rows.append(("without bound", "patients were in a training without privacy; the bars count the rest"))
    rows += [(f"run {part.name}", _cost(part)) for part in found.runs]
    rows += [(f"study {part.name[:19]}", _cost(part)) for part in found.studies]
    for tenth, patients in enumerate(found.patients_by_tenth):
        if patients:
            upper = f"up to {(tenth + 1) * 10}%" if tenth < len(found.patients_by_tenth) - 1 else "above"
            rows.append((f"patients with {upper} of the limit for life", str(patients)))
    rows.append(("head", f"row {found.head.sequence}, {found.head.digest}"))
    signed = f"row {found.countersigned.sequence}" if found.countersigned else "nothing yet"
    rows.append(("countersigned by the consortium", signed))
    pinned = (
        f"{found.server}, since {found.server_since[:16].replace('T', ' ')} UTC"
        if found.server
        else "none yet"
    )
    rows.append(("the consortium's key, pinned", pinned))
    simulated = " (simulated)" if found.simulated else ""
    return grid(f"Privacy ledger of {found.site}{simulated}, δ {found.delta:g}", ("what", "value"), rows)


def _cost(part: Part) -> str:
    spent = "without bound" if part.epsilon is None else f"ε {part.epsilon:.2f}"
    return f"{spent}, {part.rounds} charges, {part.patients} patients"


def _bar(share: float) -> str:
    full = round(min(1.0, share) * _BAR)
    return "█" * full + "·" * (_BAR - full)
