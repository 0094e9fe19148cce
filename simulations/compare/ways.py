"""The ways to train that are compared, by name, each as what it changes in the scenario's federated plan.

Numbers are those of the papers, or usual ones, and not tuned to any scenario: a way that needs tuning shows it here. Others,
or the same with other numbers, come from a file: `[<name>.<section>]` with the plan's keys.
"""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import InputError, PlanError
from common.methods import methods_of
from common.plan import Plan
from simulations.scenario import Changes, Scenario

BASE: Final = "fedavg"
"""What every other way is compared with, on the same patients."""
ALONE: Final = "alone"
POOLED: Final = "pooled"
_PLAIN: Final[Changes] = {"personalisation": {"method": "none"}}

WAYS: Final[dict[str, Changes]] = {
    ALONE: {},
    "fedavg": {},
    "fedprox": {"federation": {"strategy": "fedprox", "proximal_mu": 0.1}},
    "fedadam": {"federation": {"strategy": "fedadam", "server_learning_rate": 0.03}},
    "fedyogi": {"federation": {"strategy": "fedyogi", "server_learning_rate": 0.03}},
    "scaffold": {"federation": {"strategy": "scaffold"}},
    "q-ffl": {"federation": {"strategy": "q-ffl"}, "method": {"fairness_q": 1.0}},
    "agnostic": {"federation": {"strategy": "agnostic"}, "method": {"group_step": 0.3}},
    "ditto": {"personalisation": {"method": "ditto", "epochs": 1, "proximal_mu": 0.5}},
    "local-affine": {"personalisation": {"method": "local-affine"}},
    "finetune": {"personalisation": {"method": "finetune"}},
    "calibrate": {"personalisation": {"method": "calibrate"}},
    "histogram": {"input": {"normalisation": "histogram"}},
    "amplitude": {"input": {"normalisation": "amplitude"}},
    "scanner-chain": {"training": {"augmentation": {"scanner": 0.5}}},
    POOLED: {},
}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class Way:
    """One way to train."""

    name: str
    changes: Changes

    def plan(self, scenario: Scenario, patients: int) -> Plan:
        """Its plan.

        Args:
            scenario: whose federated plan is changed.
            patients: training patients of a usual hospital, from which the steps of SCAFFOLD follow.

        Raises:
            PlanError: the method does not hold there, by name.
        """
        base = scenario.plan_with("federated", (_PLAIN,), "the plan that is compared")
        more = [_PLAIN, self.changes]
        if self.changes.get("federation", {}).get("strategy") == "scaffold":
            more.insert(1, _same_steps(base, patients))
        return scenario.plan_with("federated", more, f"way {self.name}")

    def papers(self, plan: Plan) -> str:
        """The methods that its plan names, for records."""
        return ", ".join(methods_of(plan))


def _same_steps(plan: Plan, patients: int) -> Changes:
    """As many plain steps as a usual hospital takes, each as long as momentum makes them on average.

    Momentum begins every round at rest: its j-th step moves by (1 + m + ... + m^(j-1)) times the rate, which is far from
    1 / (1 - m) where a round has few steps.
    """
    training = plan.training
    steps = training.local_steps or training.local_epochs * max(
        1, math.ceil(patients / training.batch_patients)
    )
    reach = sum(training.momentum ** (j - k) for j in range(steps) for k in range(j + 1)) / steps
    return {
        "training": {"momentum": 0.0, "local_steps": steps, "learning_rate": training.learning_rate * reach}
    }


def ways(names: str, more: Path | None = None) -> list[Way]:
    """The ways of a list of names with commas, FedAvg among them; of a file's, too.

    Raises:
        InputError: a name that is none, or a file that cannot be read.
    """
    known = {**WAYS, **(_read(more) if more else {})}
    asked = list(known) if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            raise InputError(f"method {name}", "there is none of this name", f"Known are: {', '.join(known)}")
    return [Way(name, known[name]) for name in known if name in {BASE, *asked}]


def told(error: PlanError) -> str:
    """Why a plan was refused, in one line."""
    return "; ".join(problem.rule for problem in error.problems)


def _read(path: Path) -> dict[str, Changes]:
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise InputError(path.name, "the file is not readable TOML", "Check its syntax and rights") from None
    for name, sections in raw.items():
        whole = isinstance(sections, dict) and all(isinstance(keys, dict) for keys in sections.values())
        if not whole or not _NAME.fullmatch(name) or name in WAYS:
            raise InputError(
                f"{path.name}, [{name}]",
                "a way has a name of its own, of letters, digits and dashes, and sections of the plan",
                "Write [<name>.<section>] with the plan's keys",
            )
    return raw
