"""The bias chapter: what was found, how sure, what mends it, what that costs; pictures first. Of records only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.messages import Estimate
from common.pages.page import Figure, Table, csv_uri, difference, signed, two
from common.statistics import Gap
from server.records import RunRecord
from server.records_bias import Bias, Picture, Probe
from server.reports import mends, select
from server.reports.bias_methods import methods
from server.reports.bias_moves import moves_figure
from server.reports.gaps import gap_figure
from server.reports.rows import Axis, Row, drawn, numbers, reach
from server.reports.statistics import family_name

_FIRST: Final = "machines"
_GAPS: Final = 3
"""Gaps that are said in words; the figure has them all."""
_SUBJECTS: Final = {"manufacturer": "maker of the machine", "site": "hospital", "sex": "sex"}
_SHORT: Final = {"manufacturer": "maker", "site": "hospital", "sex": "sex"}
_SOURCES: Final = {"pixels": "raw pixels", "features": "the model's features", "score": "the score alone"}


@dataclass(frozen=True)
class Shown:
    """A picture with the numbers under it, where there are some."""

    picture: Picture
    csv: str = ""


@dataclass(frozen=True)
class Chapter:
    """What the template is filled with."""

    model: str
    found: tuple[str, ...]
    sure: str
    mends: str
    costs: str
    first: tuple[Shown, ...]
    """Pictures before everything else."""
    pictures: tuple[Shown, ...]
    figures: tuple[tuple[str, Figure], ...]
    """Name of the download, and the figure: what is judged."""
    described: tuple[tuple[str, Figure], ...]
    remedies: Table | None
    methods: tuple[str, ...]
    sources: tuple[str, ...]
    omitted: tuple[str, ...]


def chapter(record: RunRecord) -> Chapter | None:
    """The chapter of a run; None where nothing was asked."""
    bias = record.simulation_only.bias if record.simulation_only else None
    if bias is None:
        return None
    mended, price = mends.remedy(record, bias.model)
    told, sources = methods(record, bias)
    return Chapter(
        model=select.look(bias.model).label,
        found=tuple(_found(bias)),
        sure=_sure(bias),
        mends=mended,
        costs=price,
        first=tuple(_shown(p) for p in bias.pictures if p.kind == _FIRST),
        pictures=tuple(_shown(p) for p in bias.pictures if p.kind != _FIRST),
        figures=tuple(_judged(bias)),
        described=tuple(_described(bias)),
        remedies=mends.table(record, bias.model),
        methods=told,
        sources=sources,
        omitted=bias.omitted,
    )


def _shown(picture: Picture) -> Shown:
    rows = [(tile.caption, tile.value) for tile in picture.tiles if tile.value is not None]
    return Shown(picture, csv_uri(("picture", "score"), rows) if rows else "")


def alarm_sentence(probe: Probe) -> str:
    """What a judged probe found, in one sentence for a reader who knows AUROC."""
    sentence = _sentence(probe)
    return sentence[:1].upper() + sentence[1:]


def _sentence(probe: Probe) -> str:
    where = "" if probe.where == "all" else f"At {probe.where}: "
    if probe.probe == "swap":
        way = "flatters the model" if probe.figure.value > 0 else "makes the model look worse than it is"
        return (
            f"{where}who was imaged on which machine {way}: AUROC {_two(probe.before)} as imaged, {_two(probe.after)} for the "
            f"same patients with machines dealt without regard for who is ill, a difference of {difference(probe.figure)}."
        )
    if probe.probe == "dependence":
        return (
            f"{where}the score follows the {_SUBJECTS.get(probe.subject, probe.subject)}: among patients of equal truth it is "
            f"{probe.figure.value:.2f} ({probe.figure.low:.2f} to {probe.figure.high:.2f}) higher where more training patients were ill."
        )
    thing = {"border": "the border of the image", "markers": "the corners where side markers lie"}
    way = (
        "from {}, outside of the lungs, the model has"
        if probe.figure.value > 0
        else "by {}, outside of the lungs, the model loses"
    )
    return (
        f"{where}{way.format(thing.get(probe.subject, probe.subject))} "
        f"{abs(probe.figure.value):.2f} of AUROC ({_two(probe.before)} as imaged, {_two(probe.after)} with it hidden)."
    )


def _found(bias: Bias) -> Iterable[str]:
    for probe in bias.alarms():
        yield alarm_sentence(probe)
    worse = [g for g in bias.findings.found() if g.worse] if bias.findings else []
    weak = sorted(worse, key=lambda g: g.metric != "auroc")
    yield from (_weak(gap) for gap in weak[:_GAPS])
    if len(weak) > _GAPS:
        yield f"More such gaps, in the figures below: {len(weak) - _GAPS}."


def _weak(gap: Gap) -> str:
    name = " × ".join(family_name(one) for one in gap.family)
    name = f"{name[:1].upper() + name[1:]} {gap.level} is served worse than the others:"
    what = {
        "auroc": "AUROC",
        "sensitivity": "at the one threshold more of its ill are missed, sensitivity",
        "specificity": "at the one threshold more of its healthy are called ill, specificity",
    }.get(gap.metric, gap.metric)
    return f"{name} {what} {gap.value:.2f}, {difference(gap.gap)}."


def _sure(bias: Bias) -> str:
    share = f"{bias.alpha:.0%}"
    judged = sum(p.judged for p in bias.probes) + (bias.findings.tests if bias.findings else 0)
    values = [p.holm for p in bias.alarms() if p.holm is not None]
    if bias.findings:
        values += [g.holm for g in bias.findings.found()]
    start = f"{judged:,} comparisons were judged; each kind of question raises a false alarm in at most {share} of runs. "
    if not values:
        return (
            start
            + "None is beyond chance. What is too small to be seen with these patients is not thereby absent."
        )
    return (
        start
        + f"The least sure of what is named has p = {_p(max(values))}, the surest {_p(min(values))}, all corrected for one another."
    )


def _judged(bias: Bias) -> Iterable[tuple[str, Figure]]:
    swap = [_row(p, bias, "Machines dealt without regard for who is ill") for p in _of(bias, "swap")]
    if swap:
        yield "swap", _figure(
            swap, _around(swap, "AUROC as imaged less AUROC with machines dealt"),
            "The same patients, other machines",
            "Right of the grey band: the model is flattered by who comes to which machine. Left of it: harmed.",
            "virtual patients, each imaged on every machine",
        )  # fmt: skip
    if bias.findings is not None:
        yield "gaps", gap_figure(bias.findings)
        # The rates are drawn where they say something: a third of the page otherwise shows that nothing is there.
        rates = {g.metric for g in bias.findings.found()} & {"sensitivity", "specificity"}
        yield from ((f"gaps-{name}", gap_figure(bias.findings, name)) for name in sorted(rates))
    follow = [_row(p, bias, "Score among patients of equal truth") for p in _of(bias, "dependence")]
    if follow:
        yield "dependence", _figure(
            follow, _around(follow, "score where training had more ill, less where it had fewer"),
            "Does the score follow the machine, the hospital or the sex?",
            "Red: training told that more of them are ill, and the score of patients with equal truth says so too.",
            "test patients",
        )  # fmt: skip
    hide = [_row(p, bias, _REGIONS.get(p.subject, p.subject)) for p in _of(bias, "occlusion")]
    if hide:
        yield "occlusion", _figure(
            hide, _around(hide, "AUROC as imaged less AUROC with it hidden"),
            "What lies outside of the anatomy, hidden",
            "A change of more than 0.02 either way, beyond chance, is an alarm: nothing there should matter.",
            "test patients",
        )  # fmt: skip


_REGIONS: Final = {"border": "Border of the image", "markers": "Corners with side markers"}


def _described(bias: Bias) -> Iterable[tuple[str, Figure]]:
    moved = _of(bias, "move")
    if moved:
        yield "moves", moves_figure(moved)
    reads = [
        Row(
            f"The {_SUBJECTS.get(p.subject, p.subject)}",
            _after(p),
            p.figure,
            _share(p),
            p.chance,
            patients=p.patients,
        )
        for p in _of(bias, "decode")
    ]
    if reads:
        yield "decode", _figure(
            reads, Axis("balanced accuracy", 0.0, 1.0),
            "What could be read, whether or not it is used",
            "Grey: chance. Described and never judged: a machine can be recognised without being used.",
            "test patients",
        )  # fmt: skip
    looks = [
        Row("Evidence inside the lungs" if p.subject == "lungs" else "Evidence inside the finding, ill patients",
            "share of the evidence", p.figure, f"{two(p.figure.value)}, of the area {_middle(p)}", p.chance, patients=p.patients)
        for p in _of(bias, "saliency")
    ]  # fmt: skip
    if looks:
        yield "saliency", _figure(
            looks, Axis("share of the evidence (Grad-CAM)", 0.0, 1.0),
            "Where the evidence lies",
            "Grey: the share of the area. Described: such maps can mislead.",
            "virtual patients",
        )  # fmt: skip


def _figure(rows: Sequence[Row], axis: Axis, title: str, note: str, who: str) -> Figure:
    wide, narrow = drawn(rows, axis)
    most = max(row.patients for row in rows)
    return Figure(
        title,
        wide,
        narrow,
        f"{most:,} {who} at most in one row; lines are 95% intervals.",
        note,
        numbers(rows),
    )


def _around(rows: Sequence[Row], title: str) -> Axis:
    far = min(reach(rows, 0.05), 1.0)
    return Axis(title, -far, far, 0.0, lambda tick: signed(tick) if tick else "0")


def _row(probe: Probe, bias: Bias, family: str) -> Row:
    label = "All together" if probe.where == "all" else probe.where
    if probe.probe == "dependence":
        label = _SHORT.get(probe.subject, probe.subject)
    words = f"{difference(probe.figure)}  p {_p(probe.holm)}"
    return Row(
        family, label, probe.figure, words, probe.chance, probe.found(bias.alpha), patients=probe.patients
    )


def _of(bias: Bias, name: str) -> list[Probe]:
    return [p for p in bias.probes if p.probe == name]


def _after(probe: Probe) -> str:
    source = _SOURCES.get(probe.source, probe.source)
    return source if probe.round is None else f"{source}, round {probe.round}"


def _share(probe: Probe) -> str:
    return f"{two(probe.figure.value)} ({two(probe.figure.low)}–{two(probe.figure.high)})"


def _middle(probe: Probe) -> str:
    return two((probe.chance.low + probe.chance.high) / 2) if probe.chance else ""


def _two(value: Estimate | None) -> str:
    return two(value.value if value else None)


def _p(value: float | None) -> str:
    return (
        ""
        if value is None
        else "below 0.001"
        if value < 0.001
        else f"{value:.3f}"
        if value < 0.1
        else f"{value:.2f}"
    )


def summary(record: RunRecord) -> dict[str, Any]:
    """What a comparison of runs says of this chapter: number of alarms and their sentences."""
    bias = record.simulation_only.bias if record.simulation_only else None
    alarms = bias.alarms() if bias else ()
    return {
        "asked": bias is not None,
        "alarms": len(alarms),
        "sentences": [alarm_sentence(p) for p in alarms],
    }
