"""`consilium-site`: what a hospital types. The work is in `client/commands/`."""

from __future__ import annotations

from client.commands import (
    audit,
    bench,
    deid,
    doctor,
    egress,
    federation,
    images,
    labels,
    ledger,
    pacs,
    quarantine,
    receipts,
    review,
    site,
    start,
    status,
    studies,
    train,
)
from common.bill import sbom
from common.cli import example, make_app
from common.logs import configure

app = make_app(
    "A hospital in a consilium: images stay here, protected weights travel. Start with `init`, then `ingest`."
)
app.command("init", epilog=example("consilium-site init st-anna --site /srv/consilium"))(site.init)
app.command("ingest", epilog=example("consilium-site ingest export/ --labels labels.csv"))(images.ingest)
app.command("status", epilog=example("consilium-site status --json"))(status.status)
app.command("doctor", epilog=example("consilium-site doctor --kit st-anna-kit.zip"))(doctor.doctor)
app.command("train", epilog=example("consilium-site train plan.toml --out runs/alone"))(train.train)
app.command("withdraw", epilog=example("consilium-site withdraw --patient"))(images.withdraw)
app.command("serve", epilog=example("consilium-site serve --socket /run/consilium.sock"))(site.serve)
app.command("start", epilog=example("consilium-site start --site /srv/consilium"))(start.start)
app.command("connect", epilog=example("consilium-site connect --site /srv/consilium"))(start.connect)
app.command("courier", epilog=example("consilium-site courier --folder /srv/courier"))(start.courier)
app.command("alive", epilog=example("consilium-site alive service --site /srv/consilium"))(start.alive)
app.command("enrol", epilog=example("consilium-site enrol st-anna-kit.zip"))(federation.enrol)
app.command("renew", epilog=example("consilium-site renew"))(federation.renew)
app.command("roster", epilog=example("consilium-site roster --accept 3"))(federation.roster)
app.command("receipts", epilog=example("consilium-site receipts"))(receipts.receipts)
app.command("review", epilog=example("consilium-site review"))(review.review)
app.command("studies", epilog=example("consilium-site studies chest-1-3fa9c2d1"))(studies.studies)
app.command("approve", epilog=example("consilium-site approve chest-1-3fa9c2d1"))(studies.approve)
app.command("withdraw-approval", epilog=example("consilium-site withdraw-approval chest-1-3fa9c2d1"))(
    studies.withdraw_approval
)
app.command("sbom", epilog=example("consilium-site sbom --out sbom.json"))(sbom)
app.add_typer(labels.group, name="labels")
app.add_typer(ledger.group, name="ledger")
app.add_typer(quarantine.group, name="quarantine")
app.add_typer(deid.group, name="deid")
app.add_typer(pacs.group, name="pacs")
app.add_typer(egress.group, name="egress")
app.add_typer(audit.group, name="audit")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run `consilium-site` with the arguments of this process."""
    configure("WARNING")
    app(prog_name="consilium-site")


if __name__ == "__main__":
    main()
