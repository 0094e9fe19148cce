"""What the box of the bias chapter says: what was found, what could not be, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from common.messages import Estimate
from common.pages.page import difference, two
from common.statistics import Gap
from server.records_bias import Bias, Probe
from server.reports.statistics import family_name

_GAPS: Final = 3
"""Gaps that are said in words; the figure has them all."""
SUBJECTS: Final = {"manufacturer": "maker of the machine", "site": "hospital", "sex": "sex"}
"""What a probe asks for, in a reader's words."""


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
            f"{where}the score follows the {SUBJECTS.get(probe.subject, probe.subject)}: among patients of equal truth it is "
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


def found(bias: Bias) -> Iterable[str]:
    """A sentence for each alarm and for the surest gaps."""
    for probe in bias.alarms():
        yield alarm_sentence(probe)
    worse = [g for g in bias.findings.found() if g.worse] if bias.findings else []
    weak = sorted(worse, key=lambda g: g.metric != "auroc")
    yield from (_weak(gap) for gap in weak[:_GAPS])
    if len(weak) > _GAPS:
        yield f"More such gaps, in the figures below: {len(weak) - _GAPS}."


def quiet(bias: Bias) -> tuple[str, str]:
    """Of a run in which nothing was found: how good that is, as the page's class, and what can be said."""
    asked = any(probe.judged and probe.holm is not None for probe in bias.probes)
    compared = bias.findings is not None and bias.findings.tests > 0
    if asked and compared:
        return "good", "No shortcut, and no group served worse than chance explains."
    few = "no group has enough patients of both kinds to be compared with the others"
    if asked:
        return "subset", f"No shortcut. Whether a group is served worse nobody can tell from this run: {few}."
    if compared:
        return "subset", "No group served worse than chance explains. No probe for shortcuts had an answer."
    return "subset", f"Nothing could be judged: {few}, and no probe for shortcuts had an answer."


def _weak(gap: Gap) -> str:
    name = " × ".join(family_name(one) for one in gap.family)
    name = f"{name[:1].upper() + name[1:]} {gap.level} is served worse than the others:"
    what = {
        "auroc": "AUROC",
        "sensitivity": "at the one threshold more of its ill are missed, sensitivity",
        "specificity": "at the one threshold more of its healthy are called ill, specificity",
    }.get(gap.metric, gap.metric)
    return f"{name} {what} {gap.value:.2f}, {difference(gap.gap)}."


def sure(bias: Bias) -> str:
    """How many comparisons were judged, and how sure what is named is."""
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
        + f"The least sure of what is named has p = {p_value(max(values))}, the surest {p_value(min(values))}, all corrected for one another."
    )


def _two(value: Estimate | None) -> str:
    return two(value.value if value else None)


def p_value(value: float | None) -> str:
    """As a reader is shown it; empty for none."""
    return (
        ""
        if value is None
        else "below 0.001"
        if value < 0.001
        else f"{value:.3f}"
        if value < 0.1
        else f"{value:.2f}"
    )
