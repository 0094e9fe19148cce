"""From one round's sum to the next model: which gathering a plan has, and what is done with a sum that did harm.

Under masks nobody can look for the hospital that spoiled a round. So the sites hold each model they are given
against the one before, on validation patients, and under the same masks say whether it is worse. Where most of
those who judged say so, the sum they sent with that word is thrown away too, and the model before comes back.

`before-<round>.safetensors`  the model that a round began with, for the two newest rounds
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import checkpoints
from common.arrays import digest
from common.errors import FederationError
from common.types import Arrays
from server.gathering import Gathered, Gathering, Visible
from server.masked_gathering import MaskedGathering
from server.seals import load_seals
from server.strategies import model_of, strategy_for
from server.talk import Talk

_KEPT: Final = 2


def gathering_for(talk: Talk) -> Gathering:
    """The way in which this plan's updates come together.

    Raises:
        FederationError: `not-enrolled` for masked rounds without a roster.
    """
    if talk.plan.federation.aggregation == "visible":
        return Visible(talk, strategy_for(talk.plan))
    seals = load_seals(talk.options.consortium or talk.journal.out.parent)
    if seals is None:
        raise FederationError(
            "federation.aggregation",
            "masked rounds need enrolled hospitals, and this federation has no roster",
            "Enrol them (`consilium-server invite`), or set aggregation = 'visible'",
            code="not-enrolled",
        )
    return MaskedGathering(talk, seals.roster)


@dataclass(frozen=True)
class Next:
    """The model that a round ends with."""

    model: Arrays
    rolled_back: bool = False


def next_model(talk: Talk, model: Arrays, gathered: Gathered, round_: int) -> Next:
    """One step of the strategy; or the model before, where the sites found the present one worse.

    Args:
        talk: of the run.
        model: the carried tensors that the round began with (`server.strategies.contract`).
        gathered: its sum.
        round_: its number.
    """
    rule = strategy_for(talk.plan)
    if gathered.together is None:
        return Next(rule.apply(model, gathered.state, talk.plan.federation.server_learning_rate))
    before = _read(talk, round_ - 1) if gathered.together.harmed else None
    _keep(talk, before or model, round_)
    if before is None:
        return Next(rule.apply(model, gathered.state, talk.plan.federation.server_learning_rate))
    judged = {"count": gathered.together.worse, "sites": gathered.together.judged}
    talk.note("round.reverted", round=round_, digest=digest(before), **judged)
    return Next(before, rolled_back=True)


def last_model(talk: Talk, model: Arrays, votes: Iterable[bool | None]) -> Arrays:
    """The final model; or the one before, where most sites that can tell find that the last aggregate did harm.

    Args:
        talk: of the run, after its last round.
        model: that the round ended with.
        votes: of the sites that trained: whether it is worse; None for those that do not tell.
    """
    told = [vote for vote in votes if vote is not None]
    kept = _read(talk, talk.plan.federation.rounds) if 2 * sum(told) > len(told) else None
    if kept is None:
        return model
    before = model_of(kept)
    talk.note("model.reverted", digest=digest(before), count=sum(told), sites=len(told))
    return before


def _keep(talk: Talk, model: Arrays, round_: int) -> None:
    plan, architecture = talk.plan.digest, talk.journal.architecture
    checkpoints.save(
        checkpoints.Checkpoint(
            run=talk.run, round=round_, plan_digest=plan, architecture=architecture, arrays=model
        ),
        _path(talk, round_),
    )
    _path(talk, round_ - _KEPT).unlink(missing_ok=True)


def _read(talk: Talk, round_: int) -> Arrays | None:
    path = _path(talk, round_)
    return checkpoints.load(path, talk.journal.architecture).arrays if path.exists() else None


def _path(talk: Talk, round_: int) -> Path:
    return talk.journal.out / f"before-{round_}.safetensors"
