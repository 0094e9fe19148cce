"""The words a reply may hold, field by field; every other word stays.

A free text is where a name would leave, so there is none: each field of a message has a closed list or a narrow form. The
names of hidden groups are not said either: that a hospital has a few patients of a rare kind is itself a small cell.
"""

from __future__ import annotations

import re
from typing import Final

from client.policy import FIGURES, GROUPS
from common.analytics import AXES
from common.codes import FILES, REFUSALS

WITHHELD: Final = "withheld"
"""The level that stands for all hidden levels of an attribute together."""
_MODELS: Final = ("federated", "personalised", "alone", "pooled")
_DIGEST: Final = "sha256:[0-9a-f]{64}"
_FORMS: Final[dict[str, str]] = {
    "site": "([a-z0-9][a-z0-9_-]{0,62})?",
    "run": "([A-Za-z0-9][A-Za-z0-9._:+-]{0,127})?",
    "code_digest": _DIGEST,
    "plan_digest": _DIGEST,
    "digest": _DIGEST,
    "schema": _DIGEST,
    "mask_key": "[0-9a-f]{64}",
    "seal_key": "[0-9a-f]{64}",
    "commitment": "[0-9a-f]{64}",
    "signature": "[0-9a-f]{128}",
    "key": "[0-9a-f]{64}",
    "version": "[0-9]{1,4}([.][0-9]{1,4}){0,3}([a-z]{1,4}[0-9]{1,4})?",
    "sealed": "[a-z0-9][a-z0-9_-]{0,62}|[A-Za-z0-9+/=]{124}",
    "own": "[a-z0-9][a-z0-9_-]{0,62}|[0-9a-f]{64}",
    "mask": "[a-z0-9][a-z0-9_-]{0,62}|[0-9a-f]{64}",
    "arrays": "[A-Za-z0-9_][A-Za-z0-9_.]{0,127}",
}
_LISTS: Final[dict[str, frozenset[str]]] = {
    "code": REFUSALS,
    "refused": FILES,
    "model": frozenset(_MODELS),
    "other": frozenset(_MODELS),
    "metric": frozenset(FIGURES),
    "group": frozenset(("all", *GROUPS)),
    "by": frozenset(("server", "site")),
    "axis": frozenset(AXES),
}
_LEVELS: Final[dict[str, str]] = {
    "all": "all",
    "sex": "F|M|O|unknown",
    "age": r"\d\d?-\d\d?|\d\d\+|unknown",
    "projection": "AP|PA|LL|RL|LLD|RLD|LLO|RLO|CC|MLO|ML|LM|LATERAL|unknown",
    "manufacturer": "[A-Za-z0-9][A-Za-z0-9 .,&()/_+-]{0,63}|unknown",
}
"""Forms of a group's levels; those of the de-identification profile, which decides what is stored at all."""
_REST: Final = "[A-Za-z0-9:+/=_.-]{0,128}"
"""Digests, signatures and numbers that a field without a form of its own may hold: no spaces, no sentence."""


def may_be_said(field: str, word: str, group: str = "") -> bool:
    """Whether this word may stand in this field of a message.

    Args:
        field: the field's name; for a dictionary, of its keys.
        word: what would be said.
        group: of a level, the group it is one of.
    """
    if field == "level":
        form = _LEVELS.get(group, "(?!)")
        return word == WITHHELD or re.fullmatch(form, word) is not None
    if field in _LISTS:
        return word in _LISTS[field]
    return re.fullmatch(_FORMS.get(field, _REST), word) is not None
