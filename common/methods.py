"""The methods a plan can name, each with its paper, and whether it holds under privacy and under masks.

One contract, four places (docs/methods.md):

    server   how the mean update becomes the next model               `server/strategies/`
    site     what changes in local training, and what stays at home   `client/methods/`
    input    what is done to an image before the network sees it      `client/preprocess/`, `client/scanner_chain`
    after    what a hospital does to the final model for itself       `client/methods/`, `client/finetune`

A plan that asks for a method where it does not hold is refused by name, before anything runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from common.errors import Problem
from common.types import Arrays

if TYPE_CHECKING:
    from common.plan import Plan

Place = Literal["server", "site", "input", "after"]


@dataclass(frozen=True)
class Method:
    """What is known of a method before it runs."""

    key: str
    """The plan's key and value that ask for it, as in `federation.strategy = fedavg`."""
    place: Place
    paper: str
    private: str
    """Why it holds under patient-level privacy."""
    masked: str
    """Why it holds under secure aggregation."""
    not_private: str = ""
    """Why it does not; empty where it does."""
    not_masked: str = ""
    sends: str = "the update"
    """What leaves a hospital for it."""
    keeps: str = "nothing"
    """What stays at the hospital, or at the server, from round to round."""


_SUM: Final = "the server needs the sum alone"
_AFTER_NOISE: Final = "it works on what was noised before"
_PICTURE: Final = "each image is changed by itself"
_HOME: Final = "its result never leaves"

METHODS: Final[dict[str, Method]] = {
    "fedavg": Method(
        "federation.strategy = fedavg", "server", "McMahan et al., AISTATS 2017", _AFTER_NOISE, _SUM
    ),
    "fedprox": Method(
        "federation.strategy = fedprox",
        "site",
        "Li et al., MLSys 2020",
        "the pull looks at weights alone",
        _SUM,
    ),
    "fedadam": Method(
        "federation.strategy = fedadam",
        "server",
        "Reddi et al., ICLR 2021",
        _AFTER_NOISE,
        _SUM,
        keeps="the server: two moments",
    ),
    "fedyogi": Method(
        "federation.strategy = fedyogi",
        "server",
        "Reddi et al., ICLR 2021",
        _AFTER_NOISE,
        _SUM,
        keeps="the server: two moments",
    ),
    "scaffold": Method(
        "federation.strategy = scaffold",
        "site",
        "Karimireddy et al., ICML 2020; under privacy Noble et al., AISTATS 2022",
        "a variate is made of noised updates",
        "the server's variate follows from the sum",
        keeps="the site: its variate; the server: the mean one, which it sends",
    ),
    "q-ffl": Method(
        "federation.strategy = q-ffl",
        "server",
        "Li et al., ICLR 2020",
        "",
        "",
        not_private="each site's training loss would leave without noise",
        not_masked="the server weights each update by its own site's loss",
        sends="the update and the training loss",
    ),
    "agnostic": Method(
        "federation.strategy = agnostic",
        "server",
        "Mohri et al., ICML 2019; Sagawa et al., ICLR 2020",
        "",
        "",
        not_private="each site's training loss would leave without noise",
        not_masked="the server weights each update by its own site's losses",
        sends="the update and the training loss",
        keeps="the server: the losses of each site, summed",
    ),
    "finetune": Method(
        "personalisation.method = finetune",
        "after",
        "Wang et al., arXiv:1910.10252, 2019",
        _HOME,
        _HOME,
        keeps="the site: its own model",
    ),
    "ditto": Method(
        "personalisation.method = ditto",
        "site",
        "Li et al., ICML 2021",
        _HOME,
        _HOME,
        keeps="the site: its own model",
    ),
    "local-affine": Method(
        "personalisation.method = local-affine",
        "site",
        "Li et al., ICLR 2021 (FedBN), for group normalisation",
        "what stays is made of noised steps",
        _SUM,
        keeps="the site: scale and shift of its normalisation layers",
    ),
    "calibrate": Method(
        "personalisation.method = calibrate",
        "after",
        "Platt 1999; Guo et al., ICML 2017",
        _HOME,
        _HOME,
        keeps="the site: two numbers",
    ),
    "histogram": Method(
        "input.normalisation = histogram",
        "input",
        "Nyul, Udupa and Zhang, IEEE TMI 19(2), 2000",
        _PICTURE,
        _PICTURE,
    ),
    "amplitude": Method(
        "input.normalisation = amplitude",
        "input",
        "Jiang et al., AAAI 2022 (HarmoFL), with a public spectrum",
        _PICTURE,
        _PICTURE,
    ),
    "scanner-chain": Method(
        "training.augmentation.scanner > 0",
        "input",
        "Zhang et al., IEEE TMI 39(7), 2020 (BigAug)",
        _PICTURE,
        _PICTURE,
    ),
}
"""By the name that plans, pages and comparisons use."""

TELLS_LOSS: Final = frozenset(("q-ffl", "agnostic"))
"""Methods for which a site says its training loss."""
_MEANS: Final = frozenset(("none", "norm-bound"))
"""Values of `federation.robust` that leave the mean a mean."""
_NO_NORMS: Final = frozenset(("scatter", "linear"))
CONTROL: Final = "control."
"""Begins the names of the tensors that a method sends the sites beside the model."""


def model_part(arrays: Arrays) -> Arrays:
    """The model's tensors of what the sites were sent, in order."""
    if not any(name.startswith(CONTROL) for name in arrays):
        return arrays
    return {name: arrays[name] for name in arrays if not name.startswith(CONTROL)}


def control_part(arrays: Arrays) -> Arrays:
    """What a method sent beside the model, by the model's names."""
    return {name.removeprefix(CONTROL): arrays[name] for name in arrays if name.startswith(CONTROL)}


def methods_of(plan: Plan) -> tuple[str, ...]:
    """The names of the methods that a plan asks for, in the order of `METHODS`."""
    asked: set[str] = {plan.federation.strategy, plan.personalisation.method, plan.input.normalisation}
    if plan.training.augmentation.scanner > 0:
        asked.add("scanner-chain")
    return tuple(name for name in METHODS if name in asked)


def clashes(plan: Plan) -> Iterator[Problem]:
    """What the methods of a plan do not hold with; every rule names the method."""
    for name in methods_of(plan):
        method = METHODS[name]
        where = method.key.split(" ")[0]
        if plan.private and method.not_private:
            yield Problem(
                where,
                f"{name} does not hold under patient-level privacy: {method.not_private}",
                "Set privacy.mode = 'none', or choose another method (docs/methods.md)",
            )
        if plan.federation.aggregation == "secure" and method.not_masked:
            yield Problem(
                where,
                f"{name} does not hold under secure aggregation: {method.not_masked}",
                "Set aggregation = 'visible', or choose another method (docs/methods.md)",
            )
    yield from _numbers(plan)
    yield from _together(plan)
    if plan.federation.strategy == "scaffold":
        yield from _scaffold(plan)


def _numbers(plan: Plan) -> Iterator[Problem]:
    """A number of a method that the plan does not name would be believed to count."""
    for key, strategy in (("fairness_q", "q-ffl"), ("group_step", "agnostic")):
        if getattr(plan.method, key) > 0 and plan.federation.strategy != strategy:
            yield Problem(f"method.{key}", f"it is of federation.strategy = '{strategy}' alone", "Remove it")


def _together(plan: Plan) -> Iterator[Problem]:
    strategy, robust = plan.federation.strategy, plan.federation.robust
    if robust not in _MEANS and strategy not in ("fedavg", "fedprox"):
        yield Problem(
            "federation.robust",
            f"'{robust}' takes the place of the mean that {strategy} needs",
            "Use norm-bound or none, or strategy = 'fedavg'",
        )
    if plan.personalisation.method == "calibrate" and plan.task.kind == "multiclass":
        yield Problem(
            "personalisation.method",
            "calibrate fits one slope to each finding, and the classes of one image add up to 1",
            "Use it with binary or multilabel tasks",
        )
    bare = plan.model.name in _NO_NORMS or plan.model.trainable in ("head", "adapters")
    if plan.personalisation.method == "local-affine" and bare:
        yield Problem(
            "personalisation.method",
            f"local-affine keeps normalisation layers at home, and {plan.model.name} with trainable = "
            f"'{plan.model.trainable}' trains none",
            "Use small-cnn, densenet121 or resnet18 with all, last-block or norms-and-head",
        )


def _scaffold(plan: Plan) -> Iterator[Problem]:
    """Option II of the paper reads gradients off the steps; that they have all the same length is what it needs."""
    training = plan.training
    if training.optimizer != "sgd" or training.momentum > 0:
        yield Problem(
            "training.momentum",
            "scaffold reads a site's mean gradient off its steps, which only plain SGD makes of one length",
            "Set optimizer = 'sgd' and momentum = 0.0",
        )
    if not plan.private and not training.local_steps:
        yield Problem(
            "training.local_steps",
            "scaffold needs as many steps at every site, and epochs are more steps at a larger one",
            "Set it, for example to 8",
        )
    if plan.personalisation.method == "local-affine":
        yield Problem(
            "personalisation.method",
            "local-affine keeps tensors at home whose variates scaffold would correct",
            "Use one of the two",
        )
    if getattr(plan.federation, "sites_per_round", 0):
        yield Problem(
            "federation.sites_per_round",
            "scaffold's mean variate is kept for rounds in which all sites are asked",
            "Set it to 0",
        )
