"""What the review page can do, without a word of HTTP: say what waits, draw it, decide about it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from client.deid.text.found import Box
from client.intake.quarantine import Quarantine, Refusal
from client.intake.reasons import Reason
from client.intake.release import Decided, discard, find, releasable, release
from client.intake.summary import age_days
from client.review.painter import Ask, Painter, Picture
from client.site import Site
from common.errors import InputError

Action = Literal["blank", "accept", "refuse"]
_REMEMBERED: Final = 64
"""Pictures kept in memory; of 1,024 pixels a side at most, so some tens of megabytes."""


@dataclass(frozen=True)
class Waiting:
    """One image that waits for a person; nothing in it names anybody."""

    id: str
    code: str
    rule: str
    modality: str
    days_left: int
    boxes: tuple[Box, ...]
    """What was found, and what was decided to be blanked when another question came up after."""


class ReviewDesk:
    """The desk of one site. Pictures are drawn in one thread, decisions are made in another.

    Args:
        site: the hospital.
        painter: draws; see `client.review.painter`.
    """

    def __init__(self, site: Site, painter: Painter) -> None:
        self._site = site
        self._painter = painter
        self._quarantine = Quarantine.of(site)
        self._drawn: OrderedDict[tuple[str, Ask], Picture] = OrderedDict()

    @property
    def name(self) -> str:
        """The site's."""
        return self._site.name

    def waiting(self) -> list[Waiting]:
        """Every image that waits and whose original is there, the one that goes first at the top."""
        held = [one for one in self._quarantine.refusals() if one.waits]
        there = [one for one in held if self._quarantine.has_original(one.id)]
        return [self._waiting(one) for one in sorted(there, key=lambda one: (one.since, one.id))]

    def _waiting(self, one: Refusal) -> Waiting:
        left = max(0, self._site.policy.quarantine_days - age_days(one))
        boxes = tuple(dict.fromkeys((*one.decision.blank, *one.boxes)))
        return Waiting(one.id, one.code, one.rule, one.modality, left, boxes)

    def picture(self, name: str, ask: Ask) -> Picture:
        """One frame of an image that waits.

        Raises:
            InputError: `quarantine-unknown`, also for an image that was refused for good.
            FileRefused: it cannot be shown.
            StorageError: its original is missing or damaged.
        """
        if (name, ask) in self._drawn:
            self._drawn.move_to_end((name, ask))
            return self._drawn[name, ask]
        refusal = find(self._quarantine, name)
        if not releasable(refusal):
            raise InputError(
                f"quarantine {name}",
                "it does not wait for a person",
                "See quarantine list",
                code="review-none",
            )
        with self._quarantine.original(name, self._site.data / "staging") as file:
            drawn = self._painter.picture(name, file, ask)
        self._drawn[name, ask] = drawn
        if len(self._drawn) > _REMEMBERED:
            self._drawn.popitem(last=False)
        return drawn

    def decide(self, name: str, action: Action, boxes: Sequence[Box], reason: Reason) -> Decided:
        """Carry out what a person decided.

        Args:
            name: the quarantine identifier.
            action: `blank` these boxes and accept, `accept` as it is, or `refuse` for good.
            boxes: for `blank`.
            reason: see `client.intake.release`.

        Raises:
            InputError, FileRefused, StorageError: as `release` and `discard`; and `review-boxes`.
        """
        if action == "blank" and not boxes:
            raise InputError(
                "blank and accept", "there is no box", "Draw one, or accept as it is", code="review-boxes"
            )
        if action == "refuse":
            return discard(self._site, name, reason)
        return release(self._site, name, boxes if action == "blank" else (), reason)
