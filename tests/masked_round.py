"""A masked round without Flower: the sites' real halves, and a server that may do as it likes with their answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from client.membership import load_membership
from client.policy import Policy
from client.privacy.masking import Masking
from client.site import Site, init_site, load_site
from common.arrays import digest
from common.code import code_digest
from common.messages import (
    Consent,
    Dealt,
    Instruction,
    Keys,
    Kind,
    LedgerHead,
    Masked,
    Opened,
    Progress,
    Secure,
    Shares,
    SignedKeys,
    Terms,
    Update,
)
from common.plan import Plan, dump_plan
from common.secagg import labels
from common.types import Digest, RunId, SiteName
from server.unmasking import Ending, Group, MaskedSum, open_sum, weighted_sum
from simulations.enrolment import enrol
from tests.masked import masked_plan

MODEL = {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), "b": np.zeros(5, np.float32)}


@dataclass
class Table:
    """Sites around one table, with a server in the middle."""

    folder: Path
    names: tuple[str, ...]
    plan: Plan
    model: dict[str, np.ndarray] = field(default_factory=lambda: dict(MODEL))
    run: str = "run-1"
    round: int = 1
    keys: dict[str, SignedKeys] = field(default_factory=dict)
    dealt: dict[str, Dealt] = field(default_factory=dict)
    masked: dict[str, Masked] = field(default_factory=dict)
    consents: dict[str, str] = field(default_factory=dict)
    opened: dict[str, Opened] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    updates: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    threshold: int = 0

    def __post_init__(self) -> None:
        there = (self.folder / self.names[0] / "site.toml").exists()
        made = [self._site(name) for name in self.names]
        self.roster = load_membership(made[0]).roster if there else enrol(made, self.folder / "consortium")
        self.sites = dict(zip(self.names, made, strict=True))
        self.halves = {name: Masking(site) for name, site in self.sites.items()}
        rng = np.random.default_rng(0)
        for number, name in enumerate(self.names):
            self.weights.setdefault(name, (100, 50, 200)[number % 3])
            arrays = {n: rng.normal(0, 0.3, a.shape).astype(np.float32) for n, a in self.model.items()}
            self.updates.setdefault(name, arrays)
        self.threshold = self.threshold or max(3, len(self.names) // 2 + 1)

    def _site(self, name: str) -> Site:
        folder = self.folder / name
        if (folder / "site.toml").exists():
            return load_site(folder)
        return init_site(folder, name, simulation_seed=1, policy=Policy(allow_non_private=True))

    @property
    def terms(self) -> Terms:
        of = self.plan.federation
        values = sum(a.size for a in self.model.values())
        members = tuple(SiteName(name) for name in sorted(self.names))
        return Terms(
            self.roster.digest,
            members,
            self.threshold,
            of.mask_bits,
            of.mask_range,
            max(self.weights.values()),
            values,
        )

    @property
    def context(self) -> bytes:
        return labels.context_of(RunId(self.run), self.round, self.plan.digest, code_digest(), self.terms)

    @property
    def group(self) -> Group:
        return Group.of(self.terms, self.context, self.keys.values())

    @property
    def ordered(self) -> tuple[SignedKeys, ...]:
        return tuple(self.keys[name] for name in sorted(self.keys))

    @property
    def ending(self) -> Ending:
        return Ending(self.group, self.dealt, digest(self.model), tuple(sorted(self.masked)))

    def ask(self, name: str, kind: Kind, secure: Secure, model=None, **other):
        """One question to one site; raises what the site refuses with."""
        instruction = self.instruction(kind, secure, model, **other)
        return self.halves[name].answer(instruction, self.plan, lambda: self.update(name, instruction))

    def instruction(self, kind: Kind, secure: Secure, model=None, **other) -> Instruction:
        """The question itself."""
        return Instruction(
            kind=kind,
            run=RunId(other.get("run", self.run)),
            round=other.get("round", self.round),
            plan_toml=dump_plan(self.plan),
            plan_digest=self.plan.digest,
            code_digest=code_digest(),
            arrays=(self.model if model is None else model) if kind is Kind.TRAIN else {},
            secure=secure,
        )

    def update(self, name: str, instruction: Instruction) -> Update:
        """What a site learned."""
        self.trained.append(name)
        head = LedgerHead(1, Digest("sha256:" + hashlib.sha256(name.encode()).hexdigest()))
        return Update(
            SiteName(name),
            instruction.run,
            instruction.round,
            instruction.plan_digest,
            code_digest(),
            self.weights[name],
            self.updates[name],
            Progress(0.7, 0.6),
            head=head,
        )

    def restart(self, name: str) -> None:
        """The site's process ends and another begins."""
        self.halves[name] = Masking(self.sites[name])

    def do_keys(self, *vanish: str) -> None:
        for name in self.names:
            if name not in vanish:
                reply = self.ask(name, Kind.KEYS, Secure(self.terms))
                assert isinstance(reply, Keys)
                self.keys[name] = reply.keys

    def do_shares(self, *vanish: str) -> None:
        for name in self.keys:
            if name not in vanish:
                reply = self.ask(name, Kind.SHARES, Secure(self.terms, keys=self.ordered))
                assert isinstance(reply, Shares)
                self.dealt[name] = reply.dealt

    def do_train(self, *vanish: str) -> None:
        for name in self.dealt:
            if name not in vanish:
                reply = self.ask(name, Kind.TRAIN, Secure(self.terms, dealt=self.dealt))
                assert isinstance(reply, Masked)
                self.masked[name] = reply

    def listed(self, **changes) -> Secure:
        end = self.ending
        given = {"alive": end.alive, "dead": end.dead, "consents": self.consents, **changes}
        return Secure(self.terms, **given)

    def do_consent(self, *vanish: str) -> None:
        for name in self.masked:
            if name not in vanish:
                reply = self.ask(name, Kind.CONSENT, self.listed(consents={}))
                assert isinstance(reply, Consent)
                self.consents[name] = reply.signature

    def do_unmask(self, *vanish: str) -> None:
        for name in self.masked:
            if name not in vanish:
                reply = self.ask(name, Kind.UNMASK, self.listed())
                assert isinstance(reply, Opened)
                self.opened[name] = reply

    def total(self):
        """The opened sum, as the honest server finds it: (Sum, Head)."""
        total = MaskedSum(self.terms)
        for reply in self.masked.values():
            vectors = total.admits(reply.arrays)
            assert vectors is not None
            total.fold(*(vector.copy() for vector in vectors))
        open_sum(total, self.ending, self.opened)
        schema = {name: array.shape for name, array in self.model.items()}
        return weighted_sum(total, schema, sum(self.weights[name] for name in self.masked))

    def expected(self) -> dict[str, np.ndarray]:
        """The weighted sum of the survivors' updates, in plain float64."""
        return {
            n: sum(self.weights[s] * self.updates[s][n].astype(np.float64) for s in self.masked)
            for n in self.model
        }


def table(folder: Path, count: int = 5, *, bits: int = 32, **federation) -> Table:
    """A table of so many sites named site-0 and on."""
    names = tuple(f"site-{number}" for number in range(count))
    return Table(folder, names, masked_plan(names, mask_bits=bits, **federation))
