"""What the server saw of each hospital's training, and what that protects against, for a data-protection officer.

Every sentence follows from the records of the rounds; no arm is given the merits of both ways (docs/threat-model.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.plan import Plan
from server.records import ArmRecord, RoundRecord, RunRecord
from server.reports import select


@dataclass(frozen=True)
class Aggregation:
    """One arm with rounds."""

    label: str
    title: str
    sentences: tuple[str, ...]


def aggregations(record: RunRecord) -> list[Aggregation]:
    """Of every arm that was federated."""
    plan = select.plan_of(record)
    return [
        _of(arm, plan) for arm in select.federated_arms(record) if arm.federation and arm.federation.rounds
    ]


def _of(arm: ArmRecord, plan: Plan | None) -> Aggregation:
    run = arm.federation
    rounds = run.rounds if run else ()
    private = bool(run and run.private)
    label = select.look(arm.arm).label
    if rounds and all(round_.masked for round_ in rounds):
        return Aggregation(label, "The server saw sums alone", (*_secure(rounds), _noise(private=private)))
    return Aggregation(
        label, "The server saw each hospital's update", (*_visible(plan), _noise(private=private))
    )


def _secure(rounds: tuple[RoundRecord, ...]) -> tuple[str, ...]:
    fewest = min(len(round_.sites) for round_ in rounds)
    return (
        (
            f"Each hospital masked its update before it left; the server could open the sum of at least {fewest} hospitals "
            "and nothing of one of them, even by breaking the protocol."
        ),
        (
            "This protects what one hospital's model learned from a curious or lying server and from a break-in there. A sum still "
            "says what is common to its hospitals, and with few hospitals much of each."
        ),
        (
            "A hospital that sends nonsense cannot be named: each bounds its own update, and the sum can be turned down only "
            "as a whole, by what hospitals say of it."
        ),
        _judged(rounds),
    )


def _judged(rounds: tuple[RoundRecord, ...]) -> str:
    judged = [round_.round - 1 for round_ in rounds if round_.judged]
    back = [str(round_.round) for round_ in rounds if round_.rolled_back]
    if not judged:
        return (
            "No aggregate was judged by validation patients between rounds: no hospital's policy let such a word leave, and "
            "a harmful sum would not have been turned down."
        )
    told = f"Hospitals judged the aggregates of {len(judged)} of {len(rounds)} rounds on their validation patients; "
    if not back:
        return told + "none was found harmful by most."
    return (
        told
        + f"in round {', '.join(back)} the model before came back, because most found its successor worse."
    )


def _visible(plan: Plan | None) -> tuple[str, ...]:
    rule = plan.federation.robust if plan else "norm-bound"
    stood = "no rule against wrong hospitals" if rule == "none" else f"the rule {rule}"
    return (
        (
            "The consortium's server received each hospital's update and could try to infer from it what the hospital's "
            "images show."
        ),
        f"In return it could look for a hospital that sends nonsense: under {stood}.",
    )


def _noise(*, private: bool) -> str:
    if private:
        return "What anything released may tell of one training patient is bounded by the \u03b5 below, whoever reads it."
    return "Without differential privacy nothing bounds what may be inferred of one training patient from what was released."
