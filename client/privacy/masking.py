"""The hospital's half of secure aggregation: what it answers in a masked round, in which order, and what it refuses.

KEYS      hold the terms against the approved roster and plan; make keys, sign them
SHARES    everybody's keys are genuine; share out, under seal, what would open our masks
TRAIN     open the shares we are to hold; train (charged as ever); mask the update, once. In an analysis: ANALYSE, and counts
CONSENT   sign one list of who is alive and who is dead, never a second
UNMASK    enough of the living signed that list: give, for each site, the share its state calls for, never both

1. Every state and every answer is on disk before the answer leaves.
2. The same question gets the same bytes. Another question of the same stage is refused by name
   (`client.privacy.masking_checks`), as is a stage out of its order, and a round that is over.
3. An update is masked once: under another group, round or run the very same update is refused.
4. Secrets of a round are overwritten when its shares were given, or the next round begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from client.analytics.analyst import Part
from client.analytics.memory import NAME as ANALYSES
from client.analytics.memory import Memory
from client.coarsen import Rules
from client.membership import load_membership
from client.privacy import masking_checks as checks
from client.privacy.masking_checks import refused
from client.privacy.masking_round import (
    Round,
    Vectors,
    clipped,
    counted_arrays,
    head_of,
    masked_arrays,
    opened_for,
    shared_out,
    unsealed,
)
from client.privacy.masking_stages import OTHERWISE, STAGES, Asked, stages_of
from client.privacy.masking_store import NAME, Book, Held, Store
from client.privacy.masking_votes import worse
from client.site import Site
from common import wire
from common.arrays import digest
from common.code import code_digest
from common.errors import FederationError, StorageError
from common.messages import (
    Consent,
    Instruction,
    Keys,
    Kind,
    Masked,
    Opened,
    Progress,
    Reply,
    Shares,
    Update,
)
from common.methods import model_part
from common.plan import Plan
from common.secagg import keys as round_keys
from common.secagg import labels
from common.secagg.coding import Coding, joined
from common.types import Digest, RunId, SiteName

__all__ = ["STAGES", "Masking"]


class Masking:
    """The masked rounds of one site; the service asks it one thing at a time."""

    def __init__(self, site: Site, store: type[Store] = Store) -> None:
        self._site = site
        self._store = store(site.state / NAME)

    def answer(self, instruction: Instruction, plan: Plan, work: Callable[[], Update | Part]) -> Reply:
        """The answer to one question of a masked round, on disk before it is returned.

        Args:
            instruction: a stage, past the service's gates.
            plan: with `federation.aggregation = "secure"`, or an analysis.
            work: does the round's training, charged and stored by the ledger, or counts; called in TRAIN or ANALYSE
                only, after everything that can be refused before was looked at.

        Raises:
            FederationError: `secagg-…` (`client.privacy.masking_checks`), `not-enrolled`.
            StorageError: the state is damaged or cannot be written; nothing leaves then.
            ConsiliumError: whatever `work` raises.
        """
        asked = self._asked(instruction, plan)
        checks.check_terms(asked.secure.terms, self._site.name, plan, asked.membership)
        with self._store.open() as book:
            before = self._before(book, asked)
            if before is not None:
                return before
            held = self._held(book, asked)
            reply = self._stage(book, asked, held)
        if reply is None:
            return self._trained(asked, work())
        return reply

    def _asked(self, instruction: Instruction, plan: Plan) -> Asked:
        membership = load_membership(self._site)
        if membership is None:
            raise FederationError(
                "site", "it is not enrolled, so nobody knows its key", "Enrol it first", code="not-enrolled"
            )
        masked = plan.surveys or plan.federation.aggregation == "secure"
        if instruction.secure is None or not masked or instruction.kind not in stages_of(plan):
            raise refused("order", "a masked round has terms, and a plan that asks for one")
        return Asked(instruction, plan, instruction.secure, membership)

    def _before(self, book: Book, asked: Asked) -> Reply | None:
        """What was answered to the same question; another one of the same stage is refused."""
        run, round_, kind = asked.instruction.run, asked.instruction.round, asked.instruction.kind
        newest = book.newest(run)
        if round_ < newest:
            raise refused("replayed", f"round {round_} is over; round {newest} has begun")
        if round_ > newest:
            return None
        stored = book.reply(run, kind)
        if stored is None:
            return None
        if stored[0] == asked.digest:
            return _reply(stored[1])
        code, rule = OTHERWISE[kind]
        held = book.held(run)
        if kind is Kind.TRAIN and held is not None and held.model != digest(asked.instruction.arrays):
            code, rule = "model", "another model was trained in this round"
        raise refused(code, rule)

    def _held(self, book: Book, asked: Asked) -> Held:
        """The round's state, begun by KEYS; the stage before must have been answered, and under the same terms."""
        instruction, terms = asked.instruction, asked.secure.terms
        run, kind = instruction.run, instruction.kind
        context = labels.context_of(
            run, instruction.round, instruction.plan_digest, instruction.code_digest, terms
        ).hex()
        if kind is Kind.KEYS:
            if book.newest(run) == instruction.round:
                raise refused("two-rosters", "the round was begun under other terms")
            held = round_keys.new_secrets()
            return Held(terms, context, held.mask.hex(), held.seal.hex(), held.own.hex())
        state = book.held(run) if book.newest(run) == instruction.round else None
        # Whoever was away while the others consented may open for the list that enough of them signed.
        stages = stages_of(asked.plan)
        needed = stages[2] if kind is Kind.UNMASK else stages[stages.index(kind) - 1]
        if state is None or book.reply(run, needed) is None:
            raise refused("order", f"{kind.value} comes after {needed.value}")
        if state.context != context:
            raise refused("two-rosters", "the round was begun under other terms")
        return state

    def _stage(self, book: Book, asked: Asked, held: Held) -> Reply | None:
        """Do one stage; None where training comes first."""
        match asked.instruction.kind:
            case Kind.KEYS:
                return self._keys(book, asked, held)
            case Kind.SHARES:
                return self._shares(book, asked, held)
            case Kind.TRAIN | Kind.ANALYSE:
                self._ready(book, asked, held)
                return None
            case Kind.CONSENT:
                return self._consent(book, asked, held)
        return self._unmask(book, asked, held)

    def _keys(self, book: Book, asked: Asked, held: Held) -> Reply:
        site, secrets = (
            self._site.name,
            round_keys.Secrets(*map(bytes.fromhex, (held.mask, held.seal, held.own))),
        )
        signed = round_keys.signed_keys(asked.membership.identity, site, secrets, bytes.fromhex(held.context))
        book.begin(asked.instruction.run, asked.instruction.round, replace(held, keys=(signed,)))
        return self._kept(book, asked, Keys(*self._said(asked), signed))

    def _shares(self, book: Book, asked: Asked, held: Held) -> Reply:
        keys, context = asked.secure.keys, bytes.fromhex(held.context)
        checks.check_keys(keys, held.keys[0], held.terms, asked.membership, context)
        dealt, own = shared_out(Round.of(self._site.name, replace(held, keys=keys)))
        state = replace(held, keys=keys, kept={self._site.name: own})
        book.put(asked.instruction.run, state)
        return self._kept(book, asked, Shares(*self._said(asked), dealt))

    def _ready(self, book: Book, asked: Asked, held: Held) -> None:
        """Everything that can be refused before training is; the shares we hold are on disk."""
        stored = _reply((book.reply(asked.instruction.run, Kind.SHARES) or ("", b""))[1])
        model = digest(asked.instruction.arrays)
        if held.model and held.model != model:
            raise refused("model", "another model was trained in this round")
        model_values = joined(model_part(asked.instruction.arrays)).size
        values = held.terms.values if asked.plan.surveys else model_values
        if not isinstance(stored, Shares) or values != held.terms.values:
            raise refused("terms", "the model has another number of values")
        round_ = Round.of(self._site.name, held)
        dealt = asked.secure.dealt
        checks.check_dealt(dealt, round_.graph, stored.dealt, self._site.name, held.terms.threshold)
        bond = labels.bond_of(round_.group, dealt, model)
        if held.bond and held.bond != bond.hex():
            raise refused("two-groups", "other shares were told before")
        kept = {**held.kept, **unsealed(round_, dealt)}
        state = replace(held, kept=kept, dealt=tuple(sorted(dealt)), bond=bond.hex(), model=model)
        book.put(asked.instruction.run, state)

    def _trained(self, asked: Asked, made: Update | Part) -> Reply:
        """Mask what was learned; both are on disk, and bound to each other, before it is returned."""
        run = asked.instruction.run
        with self._store.open() as book:
            before = self._before(book, asked)
            held = book.held(run)
            if before is not None:
                return before
            if held is None:
                raise refused("order", "the round has no keys")
            if isinstance(made, Part):
                content, vectors = counted_arrays(run, made.counts, held.terms)
            else:
                content, vectors = self._learned(book, asked, held, made)
            if book.bond_of(content) not in (None, held.bond):
                raise refused("two-rosters", "this very update was masked for another group before")
            masked = masked_arrays(Round.of(self._site.name, held), *vectors)
            book.masked(content, run, asked.instruction.round, held.bond)
            name, run, round_, code = self._said(asked)
            reply = Masked(
                *(name, run, round_, asked.instruction.plan_digest, code, masked),
                epsilon=made.epsilon,
                simulated=made.simulated,
                head=made.head,
            )
            return self._kept(book, asked, reply)

    def _learned(self, book: Book, asked: Asked, held: Held, update: Update) -> tuple[Digest, Vectors]:
        """An update's digest, and its counts and head as they go under masks."""
        arrays = clipped(update.arrays, asked.plan.federation.max_update_norm)
        vote = self._vote(book, asked, update.progress.loss)
        if not self._rules(asked).progress:
            update = replace(update, progress=Progress(None, None))
        counts = Coding.of(held.terms).encode(joined(arrays), update.weight)
        return digest(arrays), (counts, head_of(update, vote).encode())

    def _vote(self, book: Book, asked: Asked, loss: float | None) -> bool | None:
        """Whether the incoming model is worse than the one before; the figures themselves stay here."""
        before = book.loss_before(asked.instruction.run, asked.instruction.round, loss)
        return worse(loss, before) if self._rules(asked).vote else None

    def _rules(self, asked: Asked) -> Rules:
        return Rules.of(self._site.policy, asked.plan)

    def _consent(self, book: Book, asked: Asked, held: Held) -> Reply:
        if held.alive and asked.secure.alive != held.alive:
            raise refused("two-lists", "shares were given for another list")
        round_ = Round.of(self._site.name, held)
        checks.check_list(asked.secure, held.dealt, self._site.name, round_.graph, round_.colluding)
        self._not_singled_out(asked)
        statement = labels.consent_statement(bytes.fromhex(held.bond), asked.secure.alive, asked.secure.dead)
        book.put(asked.instruction.run, replace(held, alive=asked.secure.alive))
        return self._kept(book, asked, Consent(*self._said(asked), asked.membership.identity.sign(statement)))

    def _unmask(self, book: Book, asked: Asked, held: Held) -> Reply:
        if both := set(asked.secure.alive) & set(asked.secure.dead):
            raise refused("both", f"{', '.join(sorted(both))} would be both alive and dead")
        if held.alive and asked.secure.alive != held.alive:
            raise refused("two-lists", "another list was consented to")
        round_ = Round.of(self._site.name, held)
        checks.check_list(asked.secure, held.dealt, self._site.name, round_.graph, round_.colluding)
        checks.check_consents(asked.secure, bytes.fromhex(held.bond), asked.membership)
        self._not_singled_out(asked)
        own, mask = opened_for(round_, asked.secure)
        reply = self._kept(book, asked, Opened(*self._said(asked), own, mask))
        opened = replace(held, alive=asked.secure.alive, mask="", seal="", own="", kept={})
        book.put(asked.instruction.run, opened)
        return reply

    def _not_singled_out(self, asked: Asked) -> None:
        """Exact sums of one year may not be subtracted from each other; a noisy one has noise of its own."""
        if asked.plan.surveys and not asked.plan.analytics.epsilon:
            Memory(self._site.state / ANALYSES).sign(asked.instruction.run, asked.secure.alive)

    def _said(self, asked: Asked) -> tuple[SiteName, RunId, int, Digest]:
        return self._site.name, asked.instruction.run, asked.instruction.round, code_digest()

    def _kept(self, book: Book, asked: Asked, reply: Reply) -> Reply:
        book.answer(asked.instruction.run, asked.instruction.kind, asked.digest, wire.pack(reply))
        return reply


def _reply(blob: bytes) -> Reply:
    """An answer as it was kept."""
    message = wire.unpack(blob)
    if isinstance(message, Instruction):
        raise StorageError(NAME, "it is damaged", "Restore the site's state from backup", code="secagg-state")
    return message
