"""Every probe of one finished run: pieces of work for the crew, then one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch

from client.dataset import UNKNOWN, load_dataset
from client.patients import PatientSet, concat
from common import checkpoints
from common.models import Network, architecture_digest, build, set_arrays
from common.plan import Plan
from common.statistics import Findings, Sample, Settings, gaps
from server.records_bias import Bias, Picture, Probe
from simulations.prepare import Federation
from simulations.probes import cohort, pictures, snapshots
from simulations.probes.contract import Names, Seen, chances
from simulations.probes.decode import coarse, decode
from simulations.probes.decode import records as decoded
from simulations.probes.dependence import ATTRIBUTES, Taught, dependence
from simulations.probes.networks import model_of
from simulations.probes.occlusion import occlusion
from simulations.probes.saliency import saliency
from simulations.probes.swap import moves, swap

ALPHA: Final = 0.05
MOST_ASKED: Final = 64
"""Hospitals up to which all are asked; of more, so many are drawn, and none writes its own report."""
_MOST: Final = 3000
"""Test images that are looked at; of more, these are drawn."""
_READ: Final = 800
"""Images from which machine, site and sex are read; more would cost time and change the figures little."""
_SITES: Final = 40
"""Hospitals up to which each is a group of its own."""
_GROUPS: Final = ("site", "manufacturer", "projection", "sex", "age")
_COHORT: Final = 0x636F686F


@dataclass(frozen=True)
class Question:
    """A trained model, its hospitals and where it lies."""

    series: str
    """As the report calls the model."""
    plan: Plan
    federation: Federation
    out: Path
    """Folder of the arm."""
    seed: int
    threshold: float
    virtual: bool
    omitted: tuple[str, ...] = ()
    """What is known beforehand not to be asked, in words for the report."""

    @property
    def net(self) -> Network:
        """The final network."""
        return self.after(self.out / "model.safetensors")

    def after(self, path: Path) -> Network:
        """The network of a checkpoint."""
        rows, columns = self.plan.input.shape[-2:]
        net = build(self.plan.model, self.plan.task.outputs, (rows, columns))
        set_arrays(net, checkpoints.load(path, architecture_digest(net)).arrays)
        return net


@dataclass(frozen=True)
class Tested:
    """What was asked of the hospitals' own test patients."""

    probes: tuple[Probe, ...]
    findings: Findings | None
    pictures: tuple[Picture, ...]
    omitted: tuple[str, ...]


Answer = Tested | cohort.Part


def drawn(federation: Federation, seed: int) -> tuple[Federation, tuple[str, ...]]:
    """The hospitals whose patients are asked, and what the report says of the others.

    Args:
        federation: all of them.
        seed: the same seed draws the same ones.
    """
    names = federation.names
    if len(names) <= MOST_ASKED:
        return federation, ()
    chosen = sorted(np.random.default_rng([seed, _COHORT]).permutation(len(names))[:MOST_ASKED])
    others = f"Patients of {len(names) - MOST_ASKED:,} hospitals: of {len(names):,}, {MOST_ASKED} were drawn for this chapter."
    words = (others, "A report by each hospital: with so many, none is written.")
    return replace(federation, names=tuple(names[k] for k in chosen)), words


def jobs(question: Question, workers: int) -> list[Callable[[], Answer]]:
    """Picklable pieces of work; `assembled` makes the record of what they give, in any order.

    Args:
        question: about which model.
        workers: into how many parts the patients who are imaged on every machine are dealt.
    """
    if question.plan.task.kind != "binary" or len(question.plan.input.shape) != 2:
        return []
    found: list[Callable[[], Answer]] = [partial(_tested, question)]
    if question.virtual:
        found += [partial(_part, question, number, 2 * workers) for number in range(2 * workers)]
    return found


def assembled(question: Question, answers: Sequence[Answer]) -> Bias:
    """The record of everything that was asked."""
    rng = np.random.default_rng([question.seed, _COHORT])
    parts = sorted((a for a in answers if isinstance(a, cohort.Part)), key=lambda part: part.numbers)
    tested = [a for a in answers if isinstance(a, Tested)]
    probes = [probe for one in tested for probe in one.probes]
    shown = [picture for one in tested for picture in one.pictures]
    if parts:
        swapped, more = _swapped(question, parts, rng)
        probes, shown = swapped + probes, more + shown
    return Bias(
        question.series,
        ALPHA,
        tuple(probes),
        next((one.findings for one in tested), None),
        tuple(shown),
        question.omitted
        + tuple(words for one in tested for words in one.omitted)
        + (() if question.virtual else ("The same patient on another machine: real patients have one.",)),
    )


def _swapped(
    question: Question, parts: Sequence[cohort.Part], rng: np.random.Generator
) -> tuple[list[Probe], list[Picture]]:
    who, machines = _cohort(question)
    scores = cohort.joined(parts, who, machines)
    probes = [*swap(scores, rng), *moves(scores)]
    lungs = [part.lungs for part in parts if part.lungs is not None]
    finding = [part.finding for part in parts if part.finding is not None and len(part.finding)]
    for subject, found in (("lungs", lungs), ("finding", finding)):
        if found:
            probes.append(saliency(np.concatenate(found), subject, rng))
    shown = [pictures.machines(scores, who, machines, _seed(question))]
    heats = [part.heat for part in parts if part.heat is not None]
    if heats:
        image = np.sum([part.image for part in parts], axis=0)
        shown.append(pictures.saliency(image, np.sum(heats, axis=0)))
    return probes, shown


def _seed(question: Question) -> int:
    return question.seed ^ _COHORT


def _cohort(question: Question) -> tuple[list[cohort.Guest], tuple[str, ...]]:
    specs = [question.federation.specs[name] for name in question.federation.names]
    return cohort.guests(specs, _seed(question)), cohort.machines_of(specs)


def _part(question: Question, number: int, of: int) -> Answer:
    torch.set_num_threads(1)
    who, machines = _cohort(question)
    return cohort.told(
        model_of(question.net), who[number::of], machines, _seed(question), question.plan.input
    )


def _tested(question: Question) -> Answer:
    torch.set_num_threads(1)
    rng = np.random.default_rng([question.seed, _COHORT, 1])
    data = {
        name: load_dataset(question.federation.site(name), question.plan)
        for name in question.federation.names
    }
    tests = {name: one.test for name, one in data.items() if one.test.n_images}
    seen = _seen(tests, rng)
    taught = _taught({name: data[name].train for name in question.federation.training})
    model = model_of(question.net)
    ranked, omitted = of_both_kinds(seen)
    probes = [*dependence(model, ranked, taught, rng), *occlusion(model, ranked), *_read(question, seen, rng)]
    findings, more = _gaps(question, model.logits(ranked.images), ranked, rng)
    return Tested(tuple(probes), findings, (pictures.hidden(seen.images),), omitted + more)


def of_both_kinds(seen: Seen) -> tuple[Seen, tuple[str, ...]]:
    """Without hospitals whose patients are all ill or all healthy, and words for what was left out.

    Nobody can be ranked there; their scores would be ranked against other hospitals' patients, and the gaps of everybody
    else with them.
    """
    sites = seen.attributes["site"]
    one = [str(name) for name in np.unique(sites) if len(np.unique(seen.truth[sites == name])) < 2]
    kept = ~np.isin(sites, one)
    if not one or not kept.any():
        return seen, ()
    attributes = {name: levels[kept] for name, levels in seen.attributes.items()}
    words = (
        f"Gaps and what is hidden at {', '.join(one)}: the patients there are of one kind, ill or healthy."
    )
    return Seen(seen.images[kept], seen.truth[kept], seen.patients[kept], attributes), (words,)


def _seen(tests: dict[str, PatientSet], rng: np.random.Generator) -> Seen:
    everybody = concat(list(tests.values()))
    sites = np.concatenate([np.full(one.n_images, name) for name, one in tests.items()])
    chosen = np.sort(rng.permutation(everybody.n_images)[:_MOST])
    attributes = {name: _known(values[chosen]) for name, values in everybody.attributes.items()}
    attributes["site"] = sites[chosen].astype(str)
    return Seen(
        everybody.pixels(chosen).astype(np.float32),
        everybody.labels[chosen].reshape(len(chosen)) > 0.5,
        everybody.patient_of[chosen],
        attributes,
    )


def _taught(trains: dict[str, PatientSet]) -> Taught:
    full = {name: one for name, one in trains.items() if one.n_images}
    starts = np.cumsum([0, *(one.n_patients for one in full.values())])
    owners = [one.patient_of + start for one, start in zip(full.values(), starts, strict=False)]
    attributes = {
        name: _known(np.concatenate([one.attributes[name] for one in full.values()]))
        for name in ATTRIBUTES
        if name != "site" and all(name in one.attributes for one in full.values())
    }
    attributes["site"] = np.concatenate([np.full(one.n_images, name) for name, one in full.items()]).astype(
        str
    )
    truth = np.concatenate([one.labels.reshape(one.n_images) for one in full.values()]) > 0.5
    return Taught(truth, np.concatenate(owners), attributes)


def _known(values: np.ndarray) -> Names:
    """Levels, empty where nobody knows."""
    return np.where(values == UNKNOWN, "", values).astype(str)


def _read(question: Question, seen: Seen, rng: np.random.Generator) -> list[Probe]:
    """Machine, site and sex, from pixels, from features, and from the score round by round."""
    chosen = np.sort(rng.permutation(len(seen.truth))[:_READ])
    images, owners = seen.images[chosen], seen.patients[chosen]
    wanted = {name: seen.attributes[name][chosen] for name in ATTRIBUTES if name in seen.attributes}
    wanted = {name: levels for name, levels in wanted.items() if not (levels == "").any()}
    final = question.net
    last = question.plan.federation.rounds
    found = list(decoded(decode(coarse(images), wanted, owners, rng), "pixels"))
    paths = {**snapshots.kept(question.out), last: question.out / "model.safetensors"}
    for number, path in paths.items():
        model = model_of(final if number == last else question.after(path))
        at = None if number == last else number
        if model.features is not None and (at is None or not final.frozen_features):
            found += decoded(decode(model.features(images), wanted, owners, rng), "features", at)
        found += decoded(decode(model.logits(images)[:, None], wanted, owners, rng), "score", at)
    return found


def _gaps(
    question: Question, logits: np.ndarray, seen: Seen, rng: np.random.Generator
) -> tuple[Findings | None, tuple[str, ...]]:
    omitted: tuple[str, ...] = ()
    names = [
        name for name in _GROUPS if name in seen.attributes and len(np.unique(seen.attributes[name])) > 1
    ]
    if "site" in names and len(np.unique(seen.attributes["site"])) > _SITES:
        names.remove("site")
        omitted = (f"Gaps between hospitals: there are more than {_SITES}.",)
    attributes = {name: seen.attributes[name] for name in {*names, "site"}}
    sample = Sample(chances(logits), seen.truth, seen.patients, attributes, question.threshold)
    if not names or seen.truth.all() or not seen.truth.any():
        return None, (*omitted, "Gaps between groups: there is one group, or one kind of patient.")
    settings = Settings(metrics=("auroc", "sensitivity", "specificity"), alpha=ALPHA)
    return gaps(sample, tuple((name,) for name in names), rng, settings), omitted
