"""What the profile made of a value before: the slices of a series have most of their header in common.

Remembered is only what depends on the value alone. A number names nobody. A text that was kept is kept again unless
this source's person is called so, which is asked each time; a text that was left out is remembered never, because it
may have named the person before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pydicom.dataelem import DataElement, RawDataElement

from client.deid.actions import TEXTS, names_somebody
from client.deid.profile import Rule
from client.deid.wanted import Wanted

_NUMBERS: Final = frozenset(("DS", "IS", "US", "SS", "UL", "SL", "FL", "FD"))
_SHORT: Final = 128
"""Bytes of a value, or of several in one element, that is worth remembering."""
_REMEMBERED: Final = 4096


class Plain(NamedTuple):
    """A number or a text as a source writes it, under a rule that keeps it."""

    tag: int
    vr: str
    raw: bytes


class Known(NamedTuple):
    """What becomes of a plain value."""

    element: RawDataElement | None
    """None: nothing of it may stay."""
    text: str = ""
    """A text that may stay unless it names somebody; empty for a number."""


@dataclass(frozen=True)
class Memory:
    """A bounded table of plain values."""

    _known: dict[Plain, Known] = field(default_factory=dict)

    def recall(self, plain: Plain, rule: Rule, wanted: Wanted) -> Known | None:
        """What became of this value, if the same becomes of it in this source.

        Args:
            plain: from `short_value`.
            rule: by which it is kept.
            wanted: what the source names.
        """
        known = self._known.get(plain)
        if known is None or (known.text and names_somebody(rule, known.text, wanted)):
            return None
        return known

    def keep(self, plain: Plain, value: Any, made: RawDataElement | DataElement | None) -> None:
        """Remember what became of a value.

        Args:
            plain: from `short_value`.
            value: what the rule left of it, None for nothing.
            made: as it is written.
        """
        if len(self._known) >= _REMEMBERED:
            return
        if plain.vr in _NUMBERS:
            self._known[plain] = Known(made if isinstance(made, RawDataElement) else None)
        elif value and value == plain.raw.decode("latin-1").strip(" \0") and isinstance(made, RawDataElement):
            self._known[plain] = Known(made, value)


def short_value(rule: Rule, item: RawDataElement | DataElement | None) -> Plain | None:
    """A value that is worth remembering, as it stands in its source; None for any other.

    Args:
        rule: with action `keep`.
        item: the source's element.
    """
    if not isinstance(item, RawDataElement) or not item.is_little_endian or item.VR not in rule.vr:
        return None
    raw, vr = item.value, item.VR or ""
    if not isinstance(raw, bytes) or len(raw) > _SHORT:
        return None
    return Plain(rule.tag, vr, raw) if vr in _NUMBERS or (vr in TEXTS and not rule.listed) else None
