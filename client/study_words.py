"""What a plan asks of a hospital, in words that a board can read; every value is one of the plan's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.methods import METHODS, TELLS_LOSS, methods_of
from common.plan import Plan

if TYPE_CHECKING:
    from client.policy import Policy

_PARTS = {
    "all": "all of its weights",
    "head": "only its last layer",
    "last-block": "only its last block",
    "norms-and-head": "only its normalisations and last layer",
    "adapters": "only small added layers",
}


def words(plan: Plan, policy: Policy) -> tuple[tuple[str, str], ...]:
    """Heading and sentence, in the order in which a reader asks.

    Args:
        plan: of the release.
        policy: of this hospital, which may ask for more than the plan.
    """
    if plan.surveys:
        return _analysis(plan, policy)
    return (
        ("question", plan.study.question),
        ("images", _images(plan)),
        ("labels", f"{plan.labels.provenance} (source: {plan.labels.source}, version {plan.labels.version})"),
        ("network", _network(plan)),
        ("rounds", _rounds(plan)),
        ("methods", ", ".join(f"{name} ({METHODS[name].paper})" for name in methods_of(plan))),
        ("privacy", _privacy(plan)),
        ("what leaves", _leaves(plan, policy)),
        ("server sees", _seen(plan)),
        ("stays here", _stays(plan)),
    )


def _analysis(plan: Plan, policy: Policy) -> tuple[tuple[str, str], ...]:
    """Of a plan under which patients are counted and nothing is trained."""
    asked, who = plan.analytics, _rounds(plan).partition("with ")[2]
    own = f"cells of their own: {', '.join(asked.own)}" if asked.own else "nobody shows cells of its own"
    noise = f"ε at most {asked.epsilon:g} at δ = {asked.delta:g}" if asked.epsilon else "none: exact sums"
    cell = max(plan.evaluation.min_cell, policy.min_cell)
    return (
        ("question", plan.study.question),
        (
            "what is done",
            f"an analysis: patients with {', '.join(plan.input.modalities)} images are counted, nothing is trained",
        ),
        ("who", who),
        (
            "what leaves",
            f"{own}, none below {cell} patients, in fives; of all others the sum of their counts, under masks",
        ),
        ("noise in the sum", noise),
        ("server sees", "the cells above and one sum; nobody's own counts in it"),
        ("stays here", "images, labels, exact counts, and who is counted"),
    )


def _images(plan: Plan) -> str:
    size = " x ".join(map(str, plan.input.shape))
    kinds = ", ".join(plan.input.modalities)
    return f"{kinds} images, brought to {size}, to tell {', '.join(plan.task.classes)} ({plan.task.kind})"


def _network(plan: Plan) -> str:
    begins = "from chance" if not plan.model.weights else f"from given weights ({plan.model.weights})"
    return f"{plan.model.name}, {begins}, which learns {_PARTS[plan.model.trainable]}"


def _rounds(plan: Plan) -> str:
    of = plan.federation
    who = f"the sites {', '.join(of.sites)}" if of.sites else "whoever of the federation takes part"
    return f"{of.rounds} rounds of at most {of.deadline_s:g} s each, with {who}, and never fewer than {of.least_sites}"


def _privacy(plan: Plan) -> str:
    asked = plan.privacy
    if not plan.private:
        return "NONE: weights leave without noise, and patients could be recognised from them"
    return (
        f"patient-level differential privacy, ε at most {asked.epsilon:g} at δ = {asked.delta:g} for the whole run; "
        f"one patient's part is cut to {asked.clip:g}, and each step draws a patient with probability {asked.sampling_rate:g}"
    )


def _leaves(plan: Plan, policy: Policy) -> str:
    cell = max(plan.evaluation.min_cell, policy.min_cell)
    groups = [group for group in plan.evaluation.groups if group in policy.groups]
    by = f", also by {', '.join(groups)}" if groups else ""
    weights = "weights with noise" if plan.private else "weights"
    loss = " and the training loss of the model as it came" if plan.federation.strategy in TELLS_LOSS else ""
    return (
        f"{weights}{loss} after each round; figures of test patients{by}, none of fewer than {cell} patients"
    )


def _seen(plan: Plan) -> str:
    if plan.federation.aggregation == "secure":
        return "only the sum of all hospitals' updates; yours by itself is masked"
    return "your update by itself, and may judge it"


def _stays(plan: Plan) -> str:
    own = plan.personalisation
    if own.method == "none":
        return "images, labels, scores of single patients, features"
    if own.method == "calibrate":
        return "images, labels, scores, features, and a slope and an offset for scores of your own"
    if own.method == "local-affine":
        return "images, labels, scores, features, and normalisation layers of your own"
    return f"images, labels, scores, features, and a model of your own ({own.method}, {own.epochs} epochs)"
