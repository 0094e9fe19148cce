"""The consortium's audit log: is it whole, what did each hospital swear about it, and all of it for a regulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.cli import JsonFlag, example, make_app, show
from common.errors import InputError
from server.commands.options import HERE, Folder, SiteArgument

group = make_app("The hash-chained logs of the consortium and of its runs.")
Against = Annotated[
    list[Path] | None,
    typer.Option(help="A word that a hospital holds (`consilium-site audit head`); may be repeated."),
]


@group.command("verify", epilog=example("consilium-server audit verify runs/demo-1/audit.jsonl"))
def verify(
    log: Annotated[
        Path | None, typer.Argument(help="One run's audit.jsonl; all of the folder's without.")
    ] = None,
    folder: Folder = HERE,
    against: Against = None,
    as_json: JsonFlag = False,
) -> None:
    """Check offline that no line was changed, removed, moved or put in between, nor the end rewritten."""
    if log is None:
        _verify_folder(folder, against or [], as_json)
        return
    from common.audit import parts
    from common.audit import verify as verify_log

    if log.is_dir() or not parts(log):
        remedy = "Give the path of an audit.jsonl, or a consortium's folder with --folder"
        raise InputError(log.name, "it is not a log", remedy)
    head = verify_log(log)
    result = {"log": log.name, "lines": head.count, "head": head.digest}
    show(result, as_json, lambda: f"{log.name} is whole: {head.count} lines, head {head.digest}")


@group.command("head", epilog=example("consilium-server audit head st-anna of-st-anna.json"))
def head(
    site: SiteArgument,
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    folder: Folder = HERE,
    as_json: JsonFlag = False,
) -> None:
    """Write all words of a hospital that the server holds, for whoever checks that hospital's log."""
    from common.checkpoints import write_whole
    from common.types import SiteName
    from common.witness import dump_witness
    from server.audit_book import words_held
    from server.federation_folder import Consortium

    words = words_held(Consortium.open(folder), SiteName(site))
    if not words:
        raise InputError(
            site, "it has sworn nothing here yet", "Let it take part in a round first", code="witness"
        )
    *earlier, word = words
    write_whole(path, dump_witness(word, earlier))
    told = f"{path.name}: what {site} swore up to round {word.round} of {word.run}, {len(words)} words"
    show(word, as_json, lambda: told)


@group.command("export", epilog=example("consilium-server audit export audit-2026.zip"))
def export(
    path: Annotated[Path, typer.Argument(help="The archive to write.")],
    folder: Folder = HERE,
    against: Against = None,
    as_json: JsonFlag = False,
) -> None:
    """Pack the log, all signed words and a README that checks them with sha256sum and openssl alone."""
    from common.audit_evidence import export as exported
    from common.witness import load_witnesses
    from server.audit_book import evidence
    from server.federation_folder import Consortium

    words = [word for one in against or [] for word in load_witnesses(one)]
    found = exported(evidence(Consortium.open(folder), words), path)
    show(found, as_json, lambda: f"{path.name} holds {found.lines} lines and {found.words} signed words")


def _verify_folder(folder: Path, against: list[Path], as_json: bool) -> None:
    from common.witness import load_witnesses
    from server.audit_book import check_all
    from server.federation_folder import Consortium

    words = [word for one in against for word in load_witnesses(one)]
    found = check_all(Consortium.open(folder), words)
    log = found.consortium
    told = f"{log.log} is whole: {log.lines} lines, held against {log.words} signed words, head {log.head}"
    runs = "".join(f"\nrun {run}: {lines} lines, whole" for run, lines in found.runs.items())
    show(found, as_json, lambda: told + runs)
