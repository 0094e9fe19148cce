"""The bias chapter: what was found, how sure, what mends it, what that costs; pictures first. Of records only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.pages.page import Figure, Table, csv_uri, difference, signed, two
from server.records import RunRecord
from server.records_bias import Bias, Picture, Probe
from server.reports import mends, select
from server.reports.bias_methods import methods
from server.reports.bias_moves import moves_figure
from server.reports.bias_words import SUBJECTS, alarm_sentence, found, p_value, quiet, sure
from server.reports.gaps import gap_figure
from server.reports.rows import Axis, Row, drawn, numbers, reach

_FIRST: Final = "machines"
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
    quiet: tuple[str, str]
    """Where nothing was found: the class of the box, and its sentence."""
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
        found=tuple(found(bias)),
        quiet=quiet(bias),
        sure=sure(bias),
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
            f"The {SUBJECTS.get(p.subject, p.subject)}",
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
    words = f"{difference(probe.figure)}  p {p_value(probe.holm)}"
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


def summary(record: RunRecord) -> dict[str, Any]:
    """What a comparison of runs says of this chapter: number of alarms and their sentences."""
    bias = record.simulation_only.bias if record.simulation_only else None
    alarms = bias.alarms() if bias else ()
    return {
        "asked": bias is not None,
        "alarms": len(alarms),
        "sentences": [alarm_sentence(p) for p in alarms],
    }
