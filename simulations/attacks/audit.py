"""The whole audit: every attack without protection and with it, every claim put to the test, one record, one page.

runs/audit/audit.json      every figure
runs/audit/audit.html      the same for people, with what the server could reconstruct beside the originals
runs/audit/pictures/       those pictures as PNG, one a patient and arm
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter

from common.checkpoints import write_whole
from common.code import code_digest
from common.plan import Plan, dump_plan
from simulations.attacks import canaries, imprint, inversion, ledger, membership, scale, sensitivity, sums
from simulations.attacks.images import Pictures, chests, pictures_in
from simulations.attacks.likeness import guesses
from simulations.attacks.page import Shown, write_page
from simulations.attacks.records import AuditRecord, Canaries, Check
from simulations.attacks.target import Target, plan_of

Tell = Callable[[str, int, int], None]
"""Told (what is being done, jobs done, jobs in all)."""
_SIGMAS: Final = (0.01, 0.1, 0.5, 1.0)


@dataclass(frozen=True)
class Setting:
    """How large an audit is; what is claimed is the same in all."""

    seed: int = 1
    short: bool = False
    minutes: float = 10.0
    data: Path | None = None
    """Folder of real pictures for the attacks that give pictures back; virtual chests when None."""
    batch: int = 32
    """Patients in the update that is attacked by imprint."""
    search_steps: int = 600
    models: int = 24
    canaries: canaries.Setting = field(default_factory=canaries.Setting)

    @classmethod
    def brief(cls, seed: int = 1) -> Setting:
        """For continuous integration: the claims, and each attack once in small; no membership inference."""
        small = canaries.Setting(canaries=300, side=128)
        return cls(seed=seed, short=True, batch=8, search_steps=150, models=0, canaries=small)


class Audit:
    """One audit under way: every part adds to the record."""

    def __init__(self, target: Target, setting: Setting, scratch: Path) -> None:
        self._target = target
        self._setting = setting
        self._scratch = scratch
        self._rng = np.random.default_rng([setting.seed, 0xA0D17])
        self.plan = plan_of(64, privacy={"mode": "patient-dp"})
        self.shown: list[Shown] = []
        self.record = AuditRecord(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            code_digest=code_digest(),
            seconds=0.0,
            seed=setting.seed,
            short=setting.short,
            images="real" if setting.data else "phantoms",
            plan_toml=dump_plan(self.plan),
            checks=(),
        )

    def parts(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """What is done, in order: the claims first, so that they are never what time ran out for."""
        yield "noise", self._noise
        yield "sampling", self._sampling
        yield "clipping and buffers", self._clipping
        yield "ledger", self._ledger
        for epsilon in (None, 1.0, self.plan.privacy.epsilon):
            yield f"canaries, {_claim(epsilon)}", partial(self._canaries, epsilon)
        yield "imprint", self._imprint
        yield "inversion", self._inversion
        yield "sums under secure aggregation", self._sums
        if self._setting.models:
            for epsilon in (None, 1.0, self.plan.privacy.epsilon):
                yield f"membership, {_claim(epsilon)}", partial(self._membership, epsilon)

    def _pictures(self, count: int, side: int) -> Pictures:
        if self._setting.data is not None:
            return pictures_in(self._setting.data, self._rng, count, side)
        return chests(self._rng, count, side)

    def _add(self, *checks: Check) -> None:
        self.record = replace(self.record, checks=self.record.checks + checks)

    def _noise(self) -> None:
        self._add(*scale.noise(self._target))

    def _sampling(self) -> None:
        self._add(*scale.sampling(self._target))

    def _clipping(self) -> None:
        self._add(*sensitivity.clipping(self._target, chests(self._rng, 8, 32)))

    def _ledger(self) -> None:
        site = ledger.hospital(self._scratch, self._setting.seed)
        self._add(*ledger.paid(self._target, site, self._scratch / "copy"))

    def _canaries(self, epsilon: float | None) -> None:
        found = canaries.plant(self._target, self._setting.canaries, _claim(epsilon), epsilon, self._rng)
        self.record = replace(self.record, canaries=(*self.record.canaries, found))
        if epsilon is not None:
            self._add(_contradicted(found))

    def _imprint(self) -> None:
        count = self._setting.batch
        pictures = self._pictures(count + 256 // (4 if self._setting.short else 1), 64)
        originals, public = pictures[:count], pictures[count:]
        sigmas = (1.0,) if self._setting.short else _SIGMAS
        self.shown.append(Shown("imprint", "original", originals))
        for arm in imprint.arms(count, sigmas, self.plan):
            record, found = imprint.attack(self._target, originals, public, arm)
            self.record = replace(self.record, imprint=(*self.record.imprint, record))
            self.shown.append(Shown("imprint", arm.name, found))
        guess = float(np.mean(guesses(originals, public)))
        self.record = replace(self.record, guess_db=guess)
        self._add(_not_recovered(self.record))

    def _inversion(self) -> None:
        pictures = self._pictures(33, 32)
        original, public = pictures[:1], pictures[1:]
        sigmas = (1.0,) if self._setting.short else (0.01, 0.1, 1.0)
        self.shown.append(Shown("inversion", "original", original))
        for arm in inversion.arms(sigmas):
            record, found = inversion.attack(self._target, original, public, arm, self._setting.search_steps)
            self.record = replace(self.record, inversion=(*self.record.inversion, record))
            self.shown.append(Shown("inversion", arm.name, found))

    def _sums(self) -> None:
        count, side = self._setting.batch, 64
        pictures = self._pictures(count + 256 // (4 if self._setting.short else 1), side)
        attacked = sums.Attacked(pictures[:count], pictures[count:], self._rng)
        found = [
            sums.imprinted(self._target, attacked, number)
            for number in sums.SITES[: 1 if self._setting.short else None]
        ]
        if not self._setting.short:
            small = self._pictures(33, 32)
            one, steps = sums.Attacked(small[:1], small[1:], self._rng), self._setting.search_steps
            found += [sums.inverted(self._target, one, number, steps) for number in sums.SITES]
        self.record = replace(self.record, sums=tuple(found))
        self._add(_sums_with_noise(self.record))

    def _membership(self, epsilon: float | None) -> None:
        plan = membership_plan(epsilon)
        crowd = membership.train_crowd(
            self._target, chests(self._rng, 100, 32), plan, self._setting.models, self._setting.seed
        )
        rows = tuple(
            membership.judge(crowd, _claim(epsilon), attack, plan, self._setting.seed)
            for attack in ("likelihood-ratio", "loss")
        )
        self.record = replace(self.record, membership=self.record.membership + rows)
        self._add(*membership.verdicts(rows))


def run_audit(
    target: Target, setting: Setting, out: Path, tell: Tell = lambda *_: None
) -> tuple[AuditRecord, tuple[Shown, ...]]:
    """Attack, test, write the record and the page; the record, and the pictures.

    Args:
        target: the code under audit.
        setting: how large.
        out: folder of the record and the page.
        tell: hears how far it is.

    Raises:
        ConsiliumError: what ended it, such as a folder of pictures with too few.
    """
    record, shown = measure(target, setting, tell)
    write_whole(out / "audit.json", json.dumps(asdict(record), indent=1, sort_keys=True).encode())
    write_page(record, shown, out)
    return record, shown


def measure(
    target: Target, setting: Setting, tell: Tell = lambda *_: None
) -> tuple[AuditRecord, tuple[Shown, ...]]:
    """The same without writing anything that stays; the record, and the pictures."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="audit-") as scratch:
        audit = Audit(target, setting, Path(scratch))
        parts = list(audit.parts())
        late: list[str] = []
        for number, (name, part) in enumerate(parts):
            tell(name, number, len(parts))
            if time.monotonic() - begun > 60 * setting.minutes:
                late.append(name)
                continue
            part()
        tell("done", len(parts), len(parts))
    record = replace(audit.record, seconds=time.monotonic() - begun, left_out=tuple(late))
    return record, tuple(audit.shown)


def read_audit(path: Path) -> AuditRecord:
    """Read `audit.json` back."""
    reader: Any = TypeAdapter(AuditRecord)
    record: AuditRecord = reader.validate_json(path.read_bytes())
    return record


def _claim(epsilon: float | None) -> str:
    return "no protection" if epsilon is None else f"ε = {epsilon:g}"


def _sums_with_noise(record: AuditRecord) -> Check:
    back = sum(row.with_dp for row in record.sums)
    claim = "no attack recovers an image from a masked sum to which every hospital added noise"
    return Check("sums", claim, float(back), None, 0.0, passed=back == 0)


def _contradicted(found: Canaries) -> Check:
    claim = "one training run with canaries does not contradict the claimed ε (lower bound, 95%)"
    name = f"canaries, {found.arm}"
    passed = found.claimed is None or found.lower_bound <= found.claimed
    return Check(name, claim, found.lower_bound, None, found.claimed, passed=passed)


def _not_recovered(record: AuditRecord) -> Check:
    """At σ of 0.5 and more, and at the plan's setting, no image comes back."""
    under = [arm for arm in record.imprint if arm.sigma is not None and arm.sigma >= 0.5]
    back = sum(arm.recovered for arm in under)
    claim = "a malicious network recovers no image at σ = 0.5 or more"
    return Check("imprint", claim, float(back), None, 0.0, passed=back == 0)


def membership_plan(epsilon: float | None) -> Plan:
    """Without privacy many passes, so that patients are learned by heart; with it the plan's steps and noise."""
    training: dict[str, object] = {"momentum": 0.9, "learning_rate": 0.01, "batch_patients": 16}
    privacy: dict[str, object] = {"mode": "none"}
    if epsilon is not None:
        privacy = {"mode": "patient-dp", "epsilon": epsilon}
    return plan_of(32, privacy=privacy, training={**training, "local_epochs": 20})
