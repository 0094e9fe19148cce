"""The hospital's audit log: is it whole, what did the other side swear about it, and all of it for a regulator."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from client.commands.options import HERE, SiteFolder
from common.cli import JsonFlag, example, make_app, show
from common.errors import InputError

if TYPE_CHECKING:
    from common.audit_evidence import Evidence

group = make_app("The hash-chained log of all that happened here.")
Against = Annotated[
    list[Path] | None,
    typer.Option(help="A word that the consortium holds (`consilium-server audit head`); may be repeated."),
]


@group.command("verify", epilog=example("consilium-site audit verify --against from-the-consortium.json"))
def verify(
    site: SiteFolder = HERE,
    against: Against = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the consortium for its newest word too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check offline that no line was changed, removed, moved or put in between, nor the end rewritten."""
    from client import connection_log
    from client.site import load_site
    from common.audit_evidence import check

    evidence = _evidence(site, against or [])
    if ask:
        from client.witnessing import asked

        evidence = replace(evidence, words=(*evidence.words, asked(load_site(site))))
    found = check(evidence)
    told = f"{found.log} is whole: {found.lines} lines, held against {found.words} signed words, head {found.head}"
    asked_for = connection_log.check(load_site(site))
    result = {**asdict(found), "connection": asked_for}
    show(result, as_json, lambda: f"{told}\nthe connection's log: {asked_for} lines, whole")


@group.command("head", epilog=example("consilium-site audit head of-the-server.json"))
def head(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    site: SiteFolder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Write all words of the server that this hospital holds, for whoever checks the server's log."""
    from client.membership import load_membership
    from client.site import load_site
    from client.witnessing import Witnessing
    from common.checkpoints import write_whole
    from common.witness import dump_witness

    loaded = load_site(site)
    membership = load_membership(loaded)
    words = Witnessing(loaded).heard(membership.server_key) if membership else []
    if not words:
        raise InputError(
            "audit head",
            "the server has sworn nothing here yet",
            "Take part in a round first",
            code="witness",
        )
    *earlier, newest = words
    write_whole(path, dump_witness(newest, earlier))
    told = (
        f"{path.name}: what the server swore up to round {newest.round} of {newest.run}, {len(words)} words"
    )
    show(newest, as_json, lambda: told)


@group.command("export", epilog=example("consilium-site audit export audit-2026.zip"))
def export(
    path: Annotated[Path, typer.Argument(help="The archive to write.")],
    site: SiteFolder = HERE,
    against: Against = None,
    as_json: JsonFlag = False,
) -> None:
    """Pack the log, all signed words and a README that checks them with sha256sum and openssl alone."""
    from common.audit_evidence import export as exported

    found = exported(_evidence(site, against or []), path)
    show(found, as_json, lambda: f"{path.name} holds {found.lines} lines and {found.words} signed words")


def _evidence(folder: Path, against: list[Path]) -> Evidence:
    from client import connection_log
    from client.membership import load_membership
    from client.site import load_site
    from client.witnessing import Witnessing
    from common.audit_evidence import Evidence, Keys
    from common.witness import SITE, load_witnesses

    site = load_site(folder)
    membership, kept = load_membership(site), Witnessing(site)
    words = [] if kept.words.ours is None else [kept.words.ours]
    words += [word for one in against for word in load_witnesses(one)]
    keys = None
    if membership is not None:
        words += kept.heard(membership.server_key)
        keys = Keys(membership.server_key, {site.name: membership.identity.public})
    beside = connection_log.path_of(site)
    return Evidence(SITE, site.name, site.audit, tuple(dict.fromkeys(words)), keys, (beside,))
