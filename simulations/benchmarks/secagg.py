"""What a masked round costs beside a visible one: same sites, same updates, same Flower messages, in one run.

Every site is a real service with its envelopes, its door, its memory on disk; training is the only thing left out.
Sites work in turn here and at the same time in a federation, so a round's time is that of the slowest site in
each stage, and the server's. In the masked round one site vanishes after sharing out, so that its masks have to be
recovered.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from client import direct
from client.policy import Policy
from client.service import SiteService
from client.site import init_site
from common import envelope, wire
from common.code import code_digest
from common.messages import Instruction, IntakeSummary, Kind, Progress, SiteMetrics, Update
from common.plan import Plan, plan_from_dict
from common.types import Arrays, Digest, SiteName
from server.records import RoundRecord
from server.rounds import run_federation
from server.seals import sealed
from server.start import Options, Start
from simulations.enrolment import enrol
from simulations.grid import InProcessGrid

ROUND_S: Final = 60.0
"""The training round that the share is of."""
_BUCKET: Final = 100
_TIMED: Final = (Kind.KEYS, Kind.SHARES, Kind.TRAIN, Kind.CONSENT, Kind.UNMASK)


@dataclass(frozen=True)
class Cost:
    """One round of one kind."""

    aggregation: str
    bits: int
    sites: int
    values: int
    site_s: float
    """The slowest site's seconds of each stage, summed."""
    server_s: float
    mebibytes_up: float
    of_fixed_point: float
    """Bytes a site sent, over those of its values in plain fixed point of as many bits."""
    of_fp32: float
    cpu_s: float
    """Processor seconds of the same: what is left of `seconds` where nothing else runs and the disk is quick."""

    @property
    def seconds(self) -> float:
        """Of the round, with a machine for every site."""
        return self.site_s + self.server_s


class _Duties:
    """A hospital that has trained already: its update is at hand."""

    def __init__(self, name: SiteName, update: Arrays) -> None:
        self._name, self._update = name, update

    def survey(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """One public bucket."""
        del plan
        intake = IntakeSummary(received=120, accepted=112, refused={}, patients_bucket=_BUCKET)
        return self._said(instruction, intake)

    def train(self, instruction: Instruction, plan: Plan) -> Update:
        """The update at hand."""
        return Update(
            self._name,
            instruction.run,
            instruction.round,
            plan.digest,
            code_digest(),
            _BUCKET,
            self._update,
            Progress(0.7, 0.6),
        )

    def threshold(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Nothing."""
        del plan
        return self._said(instruction)

    def evaluate(self, instruction: Instruction, plan: Plan) -> SiteMetrics:
        """Nothing."""
        del plan
        return self._said(instruction)

    def _said(self, instruction: Instruction, intake: IntakeSummary | None = None) -> SiteMetrics:
        return SiteMetrics(self._name, instruction.run, instruction.round, code_digest(), intake=intake)


@dataclass
class _Clock:
    """Seconds of each site in each stage of round 1, and of the whole round, by one clock."""

    read: Callable[[], float]
    spent: dict[Kind, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    began: float = 0.0
    ended: float = 0.0

    def slowest(self) -> float:
        """The slowest site of each stage, summed."""
        return sum(max(of.values()) for of in self.spent.values())

    def server(self) -> float:
        """From the first question of the round to the last, without the sites."""
        return self.ended - self.began - sum(sum(of.values()) for of in self.spent.values())


class _Timed(InProcessGrid):
    """A grid that looks at the clock, and from which node 1 vanishes once it has shared out."""

    def __init__(self, folders: Sequence[Path], clocks: Sequence[_Clock]) -> None:
        super().__init__(folders)
        self._clocks = clocks

    def deliver(self, message: Message) -> list[Message]:
        """As ever, timed."""
        kind, secure = _asked(message)
        node = message.metadata.dst_node_id
        if secure and node == 1 and kind in (Kind.TRAIN, Kind.CONSENT, Kind.UNMASK):
            return [Message(Error(ErrorCode.NODE_UNAVAILABLE, ""), reply_to=message)]
        begun = [clock.read() for clock in self._clocks]
        replies = super().deliver(message)
        for clock, begin in zip(self._clocks, begun, strict=True):
            if kind in _TIMED:
                clock.began = clock.began or begin
                clock.spent[kind][node] = clock.read() - begin
            elif kind is Kind.THRESHOLD and not clock.ended:
                clock.ended = begin
        return replies


def _asked(message: Message) -> tuple[Kind, bool]:
    blob = wire.from_records(message.content)
    body = envelope.split(blob)[1] if envelope.is_sealed(blob) else blob
    head = wire.head(body)
    return Kind(str(head["kind"])), head.get("secure") is not None


def costs(sites: int, values: int, all_bits: Sequence[int]) -> list[Cost]:
    """A visible round, then a masked one for each number of bits."""
    found = [_round(sites, values, "visible", 32)]
    return found + [_round(sites, values, "secure", bits) for bits in all_bits]


def _round(sites: int, values: int, aggregation: str, bits: int) -> Cost:
    names = [SiteName(f"site-{number}") for number in range(sites)]
    plan, clocks = _plan(names, aggregation, bits), (_Clock(time.perf_counter), _Clock(time.process_time))
    rng = np.random.default_rng(1)
    model = {"w": np.zeros(values, np.float32)}
    with tempfile.TemporaryDirectory(prefix="secagg-") as scratch:
        folder = Path(scratch)
        made = [
            init_site(folder / n, n, simulation_seed=1, policy=Policy(allow_non_private=True)) for n in names
        ]
        enrol(made, folder / "consortium")
        for site in made:
            update = {"w": rng.standard_normal(values, np.float32) * np.float32(0.01)}
            direct.host(SiteService(site, _Duties(site.name, update)))
        grid = _Timed([site.folder for site in made], clocks)
        start = Start(model, Digest("sha256:" + "0" * 64))
        options = Options(
            nodes=sites, turns=sites, consortium=folder / "consortium", start=lambda _plan: start
        )
        record = run_federation(sealed(grid, options.consortium), plan, folder / "out", options)
    return _cost(record.rounds[0], plan, clocks, values)


def _cost(round_: RoundRecord, plan: Plan, clocks: Sequence[_Clock], values: int) -> Cost:
    secure, sent = plan.federation.aggregation == "secure", len(round_.sites)
    bits = plan.federation.mask_bits if secure else 32
    each = round_.bytes_up / sent
    return Cost(
        aggregation=plan.federation.aggregation,
        bits=bits,
        sites=len(plan.federation.sites),
        values=values,
        site_s=clocks[0].slowest(),
        server_s=clocks[0].server(),
        cpu_s=clocks[1].slowest() + clocks[1].server(),
        mebibytes_up=each / 2**20,
        of_fixed_point=each / (values * bits / 8),
        of_fp32=each / (values * 4),
    )


def _plan(names: Sequence[str], aggregation: str, bits: int) -> Plan:
    federation: dict[str, Any] = {
        "sites": list(names),
        "rounds": 1,
        "least_sites": 3,
        "aggregation": aggregation,
        "robust": "none",
        "mask_range": 1.0,
        "max_update_norm": 1e6,
    }
    if aggregation == "secure":
        federation["mask_bits"] = bits
    return plan_from_dict(
        {
            "study": {"name": "cost", "question": "What does a masked round cost?"},
            "task": {"kind": "binary", "classes": ["finding"]},
            "input": {"modalities": ["DX"], "shape": [32, 32]},
            "labels": {"source": "synthetic", "provenance": "made up"},
            "model": {"name": "small-cnn"},
            "federation": federation,
        }
    )


def table(found: Sequence[Cost]) -> str:
    """The costs as a Markdown table."""
    plain = found[0]
    lines = [
        "| round | sites s | server s | together s | beyond visible | of 60 s | processor s | MiB a site | of fixed point | of fp32 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cost in found:
        beyond = cost.seconds - plain.seconds
        lines.append(
            f"| {cost.aggregation}, {cost.bits} bits | {cost.site_s:.2f} | {cost.server_s:.2f} | {cost.seconds:.2f} | "
            f"{beyond:+.2f} | {beyond / ROUND_S:+.1%} | {cost.cpu_s:.2f} | {cost.mebibytes_up:.1f} | {cost.of_fixed_point:.3f} | "
            f"{cost.of_fp32:.3f} |"
        )
    return "\n".join(lines)
