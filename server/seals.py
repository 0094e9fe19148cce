"""The server's half of the envelopes: a Grid that seals every question for one site and opens every answer.

1. A question bears a fresh nonce; only an answer to that very message, with that nonce, run and round, is opened.
2. An answer is its sender's by the key in the roster. Who sits at a node is learned from its answer to a question for
   everyone; any other question is for that site alone, and nobody else can answer it.
3. A courier has no key. Without an envelope it may say one thing only, that it could not ask its site, in a word of
   `COURIER`; that, and whatever cannot be opened, becomes a Refusal that names no site.
4. What goes to one site bears the server's word on the audit logs; what was opened is noted (`server.sightings`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import envelope, wire
from common.code import code_digest
from common.envelope import EVERYONE, Envelope, Expected, of_server, of_site
from common.errors import ConsiliumError, StorageError
from common.identity import Identity
from common.messages import Refusal
from common.parts import enveloped
from common.roster import Roster, verify_roster
from common.types import RunId, SiteName
from server.around import Around
from server.exchange import takes_maps
from server.federation_folder import SETTINGS, Consortium
from server.sightings import Sightings

COURIER: Final = frozenset(
    [
        "code-missing",
        "courier",
        "envelope",
        "envelope-clock",
        "envelope-recipient",
        "envelope-replay",
        "envelope-run",
        "envelope-sender",
        "envelope-signature",
        "membership",
        "no-service",
        "no-site",
        "not-approved",
        "not-enrolled",
        "roster",
        "socket",
        "storage",
        "timeout",
        "wire",
    ]
)
"""What may be said without a signature: why a question did not reach its site, or was not opened there."""
_KEPT: Final = 10_000
"""Questions whose answers are still let in; far more than a round has."""


@dataclass(frozen=True)
class Seals:
    """The server's key and the federation's members."""

    identity: Identity = field(repr=False)
    roster: Roster
    now: Callable[[], Roster | None] = field(default=lambda: None, repr=False)
    """Looks the roster up again: who was admitted while a run waits takes part, and who was revoked is heard no more."""

    @property
    def members(self) -> Roster:
        """The roster as it is at this moment; that of the beginning where there is no other."""
        return self.now() or self.roster


def load_seals(folder: Path) -> Seals | None:
    """Key and roster of the consortium in this folder; None where nobody was ever admitted, as in a simulation.

    Raises:
        FederationError: `roster` when it is not signed by that key.
        SettingsError, StorageError: the folder's parts.
    """
    if not (folder / SETTINGS).exists():
        return None
    consortium = Consortium.open(folder)

    def newest() -> Roster | None:
        roster = consortium.book.roster()
        if roster is not None:
            verify_roster(roster, consortium.identity.public)
        return roster

    first = newest()
    return None if first is None else Seals(consortium.identity, first, newest)


def sealed(grid: Grid, folder: Path | None) -> Grid:
    """The grid on which a run of this consortium speaks: with envelopes wherever there is a roster."""
    seals = None if folder is None else load_seals(folder)
    if folder is None or seals is None:
        return grid
    return SealedGrid(grid, seals, Sightings(folder, seals.identity, seals.roster))


@dataclass(frozen=True)
class _Sent:
    """A question as it went out."""

    node: int
    letter: Envelope
    site: str
    """For whom; `EVERYONE` where that was not known."""


class SealedGrid(Around[Grid]):
    """Another grid, with envelopes around what goes over it."""

    def __init__(self, grid: Grid, seals: Seals, sightings: Sightings | None = None) -> None:
        super().__init__(grid)
        self._seals = seals
        self._sightings = sightings
        self._federation = seals.roster.federation
        self._sites: dict[int, str] = {}
        self._sent: dict[str, _Sent] = {}
        self._hashed: tuple[list[bytes | memoryview], bytes] = ([], b"")

    @property
    def takes_maps(self) -> bool:
        """As the grid inside."""
        return takes_maps(self._grid)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Seal each message for its node's site and hand it on; gives the ids of those that were taken."""
        ids: list[str] = []
        for message in messages:
            sent = self._sealed(message)
            for number in self._grid.push_messages([message]):
                self._sent[number] = sent
                ids.append(number)
        while len(self._sent) > _KEPT:
            del self._sent[next(iter(self._sent))]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that came, opened."""
        for reply in self._grid.pull_messages(message_ids):
            if not reply.has_error():
                reply.content = self._opened(reply)
            yield reply

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Not a way for sealed messages: one at a time is how answers are waited for here."""
        del messages, timeout
        raise NotImplementedError

    def _sealed(self, message: Message) -> _Sent:
        """Put the envelope on; what belongs to one site only goes into its head."""
        _, parts, own = wire.spread(message.content)
        said = wire.head(parts[0])
        site = self._sites.get(message.metadata.dst_node_id, EVERYONE)
        letter = Envelope(
            of_server(self._federation),
            of_site(self._federation, site),
            str(said.get("run", "")),
            int(said.get("round", 0)),
            envelope.nonce(),
            envelope.now_ms(),
            int(message.metadata.ttl) + 1,
        )
        own = self._sworn(own, site, letter)
        head = envelope.head(self._digest(parts), self._seals.identity, letter, own)
        message.content = enveloped(message.content, head)
        return _Sent(message.metadata.dst_node_id, letter, site)

    def _digest(self, parts: list[bytes | memoryview]) -> bytes:
        """SHA-256 of a body, worked out once for all sites that are sent the very same parts."""
        before, digest = self._hashed
        if len(before) != len(parts) or any(a is not b for a, b in zip(before, parts, strict=True)):
            digest = envelope.body_digest(*parts)
            self._hashed = (parts, digest)
        return digest

    def _sworn(self, own: bytes, site: str, letter: Envelope) -> bytes:
        """The server's word for one site, with its word on the audit logs in it."""
        if not own or site == EVERYONE or self._sightings is None:
            return own
        word = self._sightings.word(SiteName(site), letter.run, letter.round)
        return json.dumps({**json.loads(own), "audit": asdict(word)}).encode()

    def _opened(self, reply: Message) -> RecordDict:
        """The message in a reply, or a Refusal that says why there is none; its parts are not copied."""
        sent = self._sent.get(reply.metadata.reply_to_message_id)
        try:
            if sent is None:
                raise envelope.refusal("envelope-replay", "it answers nothing that was asked")
            head, parts, _ = wire.spread(reply.content)
            if not head:
                return wire.to_records(_couriers(sent, b"".join(parts)))
            self._believe(sent, head, parts)
            return enveloped(reply.content, b"")
        except StorageError:
            raise  # of our own disk: no fault of whoever answered
        except ConsiliumError as error:
            return wire.to_records(_nobody(sent, error.code))

    def _believe(self, sent: _Sent, head: bytes, parts: list[bytes | memoryview]) -> None:
        """See that the envelope of an answer holds, and note what it says.

        Raises:
            FederationError: `envelope…`.
        """
        name = sent.site
        if name == EVERYONE:
            name = envelope.peek(head).sender.removesuffix(f"@{self._federation}")
        roster = self._seals.members
        key = roster.key_of(name)
        if key is None:
            raise envelope.refusal("envelope-sender", "the roster does not name its sender")
        expected = Expected(
            key,
            of_site(self._federation, name),
            (of_server(self._federation),),
            envelope.now_ms(),
            run=sent.letter.run,
            round=sent.letter.round,
            nonce=sent.letter.nonce,
        )
        opened = envelope.open_head(head, envelope.body_digest(*parts), expected)
        said = wire.head(parts[0])
        if said.get("site") != name:
            raise envelope.refusal("envelope-sender", "it names another site than the one that sealed it")
        self._sites[sent.node] = name
        if self._sightings is not None:
            skew_s = (opened.envelope.time_ms - expected.now_ms) / 1000
            self._sightings.of(roster).heard(SiteName(name), said, expected.now_ms / 1000, skew_s)


def _couriers(sent: _Sent, body: bytes) -> bytes:
    said = wire.unpack(body)
    if not isinstance(said, Refusal):
        raise envelope.refusal("envelope", "it is in no envelope, and more than a courier may say")
    return _nobody(sent, said.code if said.code in COURIER else "courier")


def _nobody(sent: _Sent | None, code: str) -> bytes:
    """A word that no hospital stands for."""
    run, round_ = (sent.letter.run, sent.letter.round) if sent else ("", 0)
    return wire.pack(Refusal(SiteName(""), RunId(run), round_, code, code_digest()))
