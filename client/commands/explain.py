"""What de-identification does with an attribute, in words."""

from __future__ import annotations

from typing import Annotated

import typer

from common.cli import JsonFlag, grid, show


def explain_deid(
    attribute: Annotated[
        str | None, typer.Argument(help="A keyword or tag, e.g. PatientName or (0010,0010).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what happens to one attribute, or list every attribute that is kept and how.

    Whatever is not listed is removed.
    """
    from client.deid.explain import explain

    rules = explain(attribute)
    rows = ((rule.tag, rule.keyword, rule.action, rule.why) for rule in rules)
    show(rules, as_json, lambda: grid("De-identification", ("tag", "attribute", "action", "why"), rows))
