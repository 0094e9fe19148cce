"""What the server saw of each hospital in its newest sealed answer, and what both swear about their audit logs.

`<folder>/seen/<site>.json`   when it answered, how far its clock is off, what it said of its machine and its spend,
                              and its newest signed word on both audit logs (`common.witness`)
`<folder>/seen/<site>.words.jsonl`   every word it ever gave

1. Only an answer whose envelope held is noted (`server.seals`), and a word only when the roster's key signed it.
2. A hospital's word is on disk before the server gives its next one, which repeats it.
3. The consortium's log gets a line for each word, and one for each round of each run with the end of that run's log,
   so that the consortium's chain holds the runs' chains too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from common.audit import AuditLog, Head
from common.checkpoints import write_whole
from common.identity import Identity
from common.messages import LogHead, SiteHealth, Witness
from common.roster import Roster
from common.types import RunId, SiteName
from common.witness import SERVER, SITE, Said, genuine, keep, witness, witness_from
from server.federation_folder import AUDIT, SETTINGS

SEEN: Final = "seen"
ANCHOR: Final = "run.head"
"""The event that binds the log of a run into the consortium's."""


@dataclass(frozen=True)
class Sighting:
    """A hospital as it was last heard."""

    at: float = 0.0
    """When its newest answer was opened: seconds since 1970, UTC."""
    skew_s: float = 0.0
    """Its clock less ours when it sealed that answer; the answer's way counts in, so a little below zero is right."""
    run: str = ""
    round: int = 0
    epsilon: float | None = None
    """Spent by its worst patient, as it said last."""
    health: SiteHealth | None = None
    audit: Witness | None = None


_SIGHTING: Final = TypeAdapter(Sighting)
_HEALTH: Final = TypeAdapter(SiteHealth)


class Sightings:
    """The folder of one consortium.

    Args:
        folder: the consortium's.
        identity: the server's.
        roster: whose words are believed.
    """

    def __init__(self, folder: Path, identity: Identity, roster: Roster) -> None:
        self._folder = folder
        self._identity = identity
        self._roster = roster
        self._audit = AuditLog(folder / AUDIT)

    def of(self, roster: Roster) -> Sightings:
        """The same folder, by another roster."""
        return Sightings(self._folder, self._identity, roster)

    def heard(self, site: SiteName, said: dict[str, Any], at: float, skew_s: float) -> None:
        """Note an answer whose envelope held.

        Args:
            site: whose it is.
            said: the answer's fields without its tensors, as it came; nothing of it is believed unjudged.
            at: when it was opened, seconds since 1970.
            skew_s: how far its clock was ahead.

        Raises:
            StorageError: it cannot be kept.
        """
        before = read_sighting(self._folder, site)
        now = replace(before, at=at, skew_s=round(skew_s, 1), run=str(said.get("run", ""))[:128])
        now = replace(now, round=_number(said.get("round")) or 0, health=_health(said) or before.health)
        spent = said.get("epsilon")
        if isinstance(spent, (int, float)) and not isinstance(spent, bool) and spent >= 0:
            now = replace(now, epsilon=float(spent))
        word = self._judged(site, said.get("audit"))
        if word is not None and word != before.audit:
            now = replace(now, audit=word)
            self._audit.append("audit.seen", site=site, digest=word.here.digest)
            keep(words_of(self._folder, site), word, at)
        text = json.dumps(asdict(now), indent=1, sort_keys=True)
        write_whole(self._folder / SEEN / f"{site}.json", text.encode())

    def word(self, site: SiteName, run: str, round_: int) -> Witness:
        """The server's word for one hospital: where the consortium's log ends, and the newest end of theirs."""
        head = self._audit.append("audit.given", site=site, run=run, round=round_)
        seen = read_sighting(self._folder, site).audit
        there = None if seen is None else seen.here
        said = Said(SERVER, site, LogHead(head.digest, head.count), there, RunId(run), round_)
        return witness(self._identity, said)

    def standing(self, site: SiteName) -> Witness:
        """The same word outside of a round; no line of the log is written for it, so that asking often fills nothing."""
        head = self._audit.head()
        seen = read_sighting(self._folder, site).audit
        there = None if seen is None else seen.here
        return witness(
            self._identity, Said(SERVER, site, LogHead(head.digest, head.count), there, RunId("asked"), 0)
        )

    def _judged(self, site: SiteName, values: object) -> Witness | None:
        """A word that this hospital's key signed, about itself."""
        key = self._roster.key_of(site)
        if values is None or key is None:
            return None
        try:
            given = witness_from(values)
        except ValueError:
            return None
        if given.by == SITE and given.site == site and genuine(given, key):
            return given
        self._audit.append("audit.unsigned", site=site)
        return None


def read_sighting(folder: Path, site: SiteName) -> Sighting:
    """What was last noted of a hospital; an empty one before it was heard, or where the note is damaged."""
    try:
        return _SIGHTING.validate_json((folder / SEEN / f"{site}.json").read_bytes())
    except (OSError, ValidationError):
        return Sighting()


def words_of(folder: Path, site: SiteName) -> Path:
    """Where a hospital's words are kept, all of them; its folder is made."""
    (folder / SEEN).mkdir(exist_ok=True)
    return folder / SEEN / f"{site}.words.jsonl"


def anchored(folder: Path, run: str, event: str, head: Head) -> None:
    """Bind the end of a run's log into the consortium's log; nothing where there is no consortium.

    Args:
        folder: the consortium's.
        run: the run.
        event: what the last line of the run's log tells.
        head: of the run's log.
    """
    if (folder / SETTINGS).exists():
        AuditLog(folder / AUDIT).append(ANCHOR, run=run, stage=event, count=head.count, digest=head.digest)


def _number(value: object) -> int | None:
    return value if type(value) is int else None


def _health(said: dict[str, Any]) -> SiteHealth | None:
    try:
        return _HEALTH.validate_python(said.get("health"), strict=False)
    except ValidationError:
        return None
