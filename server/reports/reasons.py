"""What the fixed words mean: refusal and quarantine codes, in a sentence and with what to do."""

from __future__ import annotations

from typing import Final

from common.pages.page import NOTHING

_MEANINGS: Final[dict[str, tuple[str, str]]] = {
    "no-reply": ("no answer before the deadline", "Ask the hospital whether its site service runs"),
    "policy-non-private": ("the hospital trains under differential privacy only", "Release a private plan"),
    "policy-epsilon": ("the plan spends more than the hospital allows", "Lower privacy.epsilon"),
    "policy-delta": ("the plan's delta is above the hospital's ceiling", "Lower privacy.delta"),
    "policy-clip": ("the plan's clip is above the hospital's ceiling", "Lower privacy.clip"),
    "policy-network": ("the network is not on the hospital's list", "Choose a listed network"),
    "policy": ("the hospital's policy forbids it", "Read the hospital's policy"),
    "privacy": (
        "the privacy budget or mechanism does not allow it",
        "Ask the hospital for its ledger's state",
    ),
    "ledger": (
        "the hospital's privacy ledger is spent, missing or damaged",
        "The hospital inspects its ledger",
    ),
    "admission": ("the update broke a rule of admission", "Look for the site in the server's log"),
    "data": ("too few patients, or one class only", "The hospital checks its labels and its intake"),
    "storage": ("the hospital's disk is full or its store unreadable", "The hospital frees space"),
    "subset": ("fewer hospitals than the plan requires", "Wait for the others, or lower least_sites"),
}


def meaning(code: str) -> tuple[str, str]:
    """The reason and the remedy behind a code; for a code not known here, where to look it up."""
    found = _MEANINGS.get(code) or _MEANINGS.get(code.split("-", 1)[0])
    return found or (NOTHING, "The hospital's own report explains this code")
