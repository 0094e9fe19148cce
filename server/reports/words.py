"""The first sentences of a report, written from the record by rule: harm first, then the answer."""

from __future__ import annotations

from dataclasses import dataclass

from common.messages import Estimate
from common.pages.page import difference, estimate, two
from server.records import RunRecord
from server.reports import select
from server.reports.chance import mean, unpaired
from server.reports.statistics import GroupRow, confidence_of, family_name, group_rows, weak_groups


@dataclass(frozen=True)
class Harm:
    """A hospital that a shared model serves worse than its own, beyond the paired interval."""

    site: str
    series: str
    change: Estimate

    @property
    def sentence(self) -> str:
        """The harm in one sentence."""
        label = select.look(self.series).label
        return f"{self.site}: {label} minus alone, AUROC {difference(self.change)}, same test patients."


@dataclass(frozen=True)
class Gap:
    """The mean over hospitals of one series minus another, and whether patients were paired."""

    model: str
    other: str
    change: Estimate
    sites: tuple[str, ...]
    paired: bool


def harms(record: RunRecord) -> list[Harm]:
    """Every hospital and shared model whose paired difference to the hospital alone lies below zero."""
    found = []
    for series in select.FEDERATED:
        for site in select.sites(record):
            change = select.paired(record, site, series, "alone")
            if change is not None and change.high < 0:
                found.append(Harm(site, series, change))
    return found


def site_gap(record: RunRecord, site: str, model: str, other: str) -> tuple[Estimate, bool] | None:
    """`model - other` in AUROC at one site, paired where the record has it; None where neither was released."""
    change = select.paired(record, site, model, other)
    if change is not None:
        return change, True
    series = select.all_series(record)
    first = select.group_of(series.get(model, {}).get(site))
    second = select.group_of(series.get(other, {}).get(site))
    if first is None or second is None or first.auroc is None or second.auroc is None:
        return None
    return unpaired(first.auroc, second.auroc, confidence_of(record)), False


def mean_gap(record: RunRecord, model: str, other: str) -> Gap | None:
    """The mean difference over the hospitals that trained and released both."""
    found = {
        site: gap
        for site in select.sites(record)
        if site not in record.external and (gap := site_gap(record, site, model, other)) is not None
    }
    change = mean([gap for gap, _ in found.values()], confidence_of(record))
    if change is None:
        return None
    return Gap(model, other, change, tuple(found), all(paired for _, paired in found.values()))


def mean_auroc(record: RunRecord, series: str) -> tuple[Estimate, tuple[str, ...]] | None:
    """A model's mean AUROC over the hospitals that trained, and which hospitals entered."""
    by_site = select.all_series(record).get(series, {})
    found = {
        site: group.auroc
        for site in select.sites(record)
        if site not in record.external
        and (group := select.group_of(by_site.get(site))) is not None
        and group.auroc is not None
    }
    value = mean(list(found.values()), confidence_of(record))
    if value is None:
        return None
    if len(found) == 1:
        return next(iter(found.values())), tuple(found)  # its own interval, not a normal one made of it
    return Estimate(value.value, max(0.0, value.low), min(1.0, value.high)), tuple(found)


def answer(record: RunRecord) -> list[str]:
    """Two or three plain sentences: how well it works, what sharing gave, what privacy cost."""
    sentences = []
    main = select.main_series(record)
    if main in select.FEDERATED:
        sentences.append(f"{trained_words(record)} trained one model together; no image left its hospital.")
    overall = mean_auroc(record, main) if main else None
    if main and overall:
        value, who = overall
        sentences.append(
            f"{_subject(main)} separates patients with and without the finding with a mean AUROC of "
            f"{estimate(value)} over {hospitals(len(who))}."
        )
    else:
        plan = select.plan_of(record)
        cell = plan.evaluation.min_cell if plan else 11
        sentences.append(
            f"No hospital released an AUROC (it takes {cell} test patients with the finding and {cell} without), so this run "
            "does not say how well the model works."
        )
    base = main if main in select.FEDERATED else "federated"
    gain = mean_gap(record, base, "alone")
    if gain:
        sentences.append(_gain_sentence(gain))
    cost = mean_gap(record, "federated", "federated-dp")
    if cost:
        sentences.append(_cost_sentence(cost, record))
    return sentences


def _subject(series: str) -> str:
    words = {
        "alone": "The model each hospital trained alone",
        "pooled": "The model trained on pooled patients (possible only in a simulation)",
        "federated-dp": "The private federated model",
        "personalised": "The federated model, fine-tuned at each hospital,",
        "personalised-dp": "The private federated model, fine-tuned at each hospital,",
    }
    return words.get(series, "The federated model")


def _gain_sentence(gap: Gap) -> str:
    if gap.change.low > 0:
        verdict = "Training together helped"
    elif gap.change.high < 0:
        verdict = "Training together made things worse on average"
    else:
        verdict = "Training together made no difference that this run can tell from chance"
    return f"{verdict}: {difference(gap.change)} AUROC against each hospital alone, on average."


def _cost_sentence(gap: Gap, record: RunRecord) -> str:
    spent = epsilon_spent(record)
    budget = f" (\u03b5 at most {two(spent)} at any hospital)" if spent is not None else ""
    if gap.change.low > 0:
        return f"Privacy{budget} cost {difference(gap.change)} AUROC on average."
    return f"Privacy{budget} cost no AUROC that this run can tell from chance: {difference(gap.change)}."


def epsilon_spent(record: RunRecord) -> float | None:
    """The largest epsilon any hospital reported in any private run."""
    found: list[float] = []
    for arm in record.arms.values():
        found += [m.epsilon for m in arm.sites.values() if m.epsilon is not None]
        if arm.federation is not None:
            found += [
                s.epsilon for r in arm.federation.rounds for s in r.sites.values() if s.epsilon is not None
            ]
    return max(found, default=None)


def trained_words(record: RunRecord) -> str:
    """`6 hospitals`, or `5 of 6 hospitals` where the report's model is a subset's."""
    runs = [arm.federation for arm in select.federated_arms(record) if arm.federation is not None]
    if not runs:
        return hospitals(sum(1 for site in select.sites(record) if site not in record.external))
    trained, expected = len(runs[0].trained), len(runs[0].expected)
    return hospitals(trained) if trained >= expected else f"{trained} of {hospitals(expected)}"


def hospitals(number: int) -> str:
    """`1 hospital`, `6 hospitals`."""
    return f"{number} hospital" if number == 1 else f"{number} hospitals"


def weak_sentence(spot: WeakSpot) -> str:
    """A weak spot in one sentence: the name, the figure, and what chance would have allowed."""
    row = spot.row
    if row.auroc is None or row.band is None:
        return ""
    return (
        f"{family_name(row.family)} {row.name}, {select.look(spot.series).label.lower()}: "
        f"AUROC {estimate(row.auroc)} on {row.patients:,} test patients; the others together "
        f"{two(row.band.centre)}, and chance alone would rarely go below {two(row.band.low)}."
    )


def _named(row: GroupRow) -> str:
    words = f"{family_name(row.family).lower()} {row.name}"
    if row.auroc is None or row.band is None:
        return words
    return f"{words} (AUROC {two(row.auroc.value)}, the others {two(row.band.centre)})"


@dataclass(frozen=True)
class WeakSpot:
    """A group below the band of chance, and the model it was seen under."""

    series: str
    row: GroupRow


def weak_spots(record: RunRecord) -> list[WeakSpot]:
    """Weak groups of the report's main model, then those that only the private model shows."""
    found: dict[tuple[str, str], WeakSpot] = {}
    for series in dict.fromkeys((select.main_series(record), "federated-dp")):
        if series in select.all_series(record):
            for row in weak_groups(record, series):
                found.setdefault((row.family, row.name), WeakSpot(series, row))
    return list(found.values())


def judged(record: RunRecord) -> int:
    """Groups that were held against chance under the report's main model."""
    return sum(row.band is not None for row in group_rows(record))


def weak_summary(record: RunRecord) -> str:
    """One sentence about weak spots for the headline."""
    spots = weak_spots(record)
    if not judged(record):
        return "Nothing could be held against chance: no two groups have a released AUROC, so a weak spot may be there unseen."
    if not spots:
        return "No scanner, projection or hospital lies below what chance alone would give."
    names = ", ".join(_named(spot.row) for spot in spots[:3])
    more = f" and {len(spots) - 3} more" if len(spots) > 3 else ""
    return f"Weaker than chance can explain: {names}{more}."
