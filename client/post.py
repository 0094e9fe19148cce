"""The site's half of the envelopes: what comes in is the server's and meant for us; what goes out is signed.

1. A site that is enrolled opens nothing but what its pinned server sealed for it, once, within the message's time.
2. A site that is not enrolled answers nobody, unless it is a virtual hospital of a simulation.
3. What names everyone instead of one site may only ask who is there (a survey, or a call for presence).
4. An answer bears the question's run, round and nonce, so that it answers nothing else. A message that could not be
   opened gets a Refusal without an envelope: nobody is known to whom it could be bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from client.membership import FOLDER, Membership, load_membership
from client.vocabulary import may_be_said
from common import envelope, wire
from common.envelope import EVERYONE, Expected, Opened, of_server, of_site
from common.errors import FederationError
from common.messages import Instruction
from common.replay import Seen

if TYPE_CHECKING:
    from client.site import Site

SEEN: Final = "seen.sqlite"
_FOR_EVERYONE: Final = ("survey", "present")


@dataclass(frozen=True)
class Letter:
    """An instruction's bytes, and to whom its answer goes; without a membership to nobody in particular."""

    body: bytes
    opened: Opened | None = None
    membership: Membership | None = None

    def check(self, instruction: Instruction) -> None:
        """What stands on the envelope is what stands in the letter.

        Raises:
            FederationError: `envelope-run`, or `envelope-recipient` for what only one site may be asked.
        """
        if self.opened is None:
            return
        on = self.opened.envelope
        if (on.run, on.round) != (instruction.run, instruction.round):
            raise envelope.refusal("envelope-run", "its envelope is about another run or round")
        if on.to.startswith(EVERYONE) and instruction.kind.value not in _FOR_EVERYONE:
            raise envelope.refusal(
                "envelope-recipient", "it names no site, and asks for more than who is there"
            )

    def answered(self, reply: bytes) -> bytes:
        """A reply, ready for the courier: in an envelope, where the question came in one."""
        if self.opened is None or self.membership is None:
            return reply
        on, roster = self.opened.envelope, self.membership.roster
        own = of_site(roster.federation, _name(self.membership))
        # A server may write anything where a run's name belongs; only a name is repeated.
        run = on.run if may_be_said("run", on.run) else ""
        back = replace(on, sender=own, to=of_server(roster.federation), run=run, time_ms=envelope.now_ms())
        return envelope.seal(reply, self.membership.identity, back)


class Post:
    """The letter box of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen = Seen(site.state / FOLDER / SEEN)

    def open(self, blob: bytes) -> Letter:
        """What a courier brought, if it is from the server and for us.

        Raises:
            FederationError: `not-enrolled`, or `envelope…` (`common.envelope`).
            StorageError: membership or memory cannot be read.
        """
        membership = load_membership(self._site)
        if membership is None:
            if not self._site.simulated:
                raise FederationError(
                    "site",
                    "this hospital is not enrolled, so that nobody may ask it anything",
                    "Run `consilium-site enrol` with the consortium's kit",
                    code="not-enrolled",
                )
            return Letter(blob)
        now, federation = envelope.now_ms(), membership.roster.federation
        to = tuple(of_site(federation, name) for name in (self._site.name, EVERYONE))
        opened = envelope.unseal(blob, Expected(membership.server_key, of_server(federation), to, now))
        self._seen.admit(opened.envelope, now)
        return Letter(wire.with_beside(opened.body, opened.beside), opened, membership)


def _name(membership: Membership) -> str:
    """The name under which the roster has our key; `load_membership` saw to it that there is one."""
    own = membership.identity.public
    return next(member.name for member in membership.roster.members if member.key == own)
