"""A hospital's half of its federation: whether it is enrolled, when it was last asked what, and what left.

All of it is from files of this site; nobody is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.egress import RELEASED
from client.membership import load_membership
from client.witnessing import Witnessing
from common.audit import read
from common.errors import ConsiliumError
from common.identity import fingerprint

if TYPE_CHECKING:
    from client.site import Site

INSTRUCTION: Final = "instruction"


@dataclass(frozen=True)
class Standing:
    """The hospital in its federation."""

    federation: str = ""
    """Empty: not enrolled."""
    server: str = ""
    """Fingerprint of the server's key."""
    roster: int = 0
    """Version that was accepted here."""
    problem: str = ""
    """Code, where what was pinned cannot be believed."""
    last_contact: str = ""
    """UTC, when the server last asked something; empty: never."""
    asked: str = ""
    """What it asked: `survey`, `train` and so on."""
    run: str = ""
    round: int = 0
    messages: int = 0
    """That left, refusals too."""
    bytes: int = 0
    witnessed: str = ""
    """The run and round in which the server last swore to both audit logs; empty: never."""


def standing(site: Site) -> Standing:
    """As it is now; what cannot be believed is named by its code and left out."""
    federation, server, roster, problem, witnessed = "", "", 0, "", ""
    try:
        membership = load_membership(site)
        if membership is not None:
            federation, roster = membership.roster.federation, membership.roster.version
            server = fingerprint(membership.server_key)
        theirs = Witnessing(site).words.theirs
        witnessed = "" if theirs is None else f"{theirs.run}, round {theirs.round}"
    except ConsiliumError as error:
        problem = error.code
    last, messages, size = {}, 0, 0
    for entry in read(site.audit):
        if entry["event"] == INSTRUCTION:
            last = entry
        elif entry["event"] == RELEASED:
            messages, size = messages + 1, size + int(entry["fields"].get("bytes", 0))
    fields = last.get("fields", {})
    return Standing(
        federation=federation,
        server=server,
        roster=roster,
        problem=problem,
        last_contact=str(last.get("time", "")),
        asked=str(fields.get("kind", "")),
        run=str(fields.get("run", "")),
        round=int(fields.get("round", 0)),
        messages=messages,
        bytes=size,
        witnessed=witnessed,
    )
