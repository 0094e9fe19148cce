"""What lies outside of the anatomy, hidden: markers and borders.

Judged. A region is replaced, in every image alike, by its average over all images, so that nothing in it tells patients apart
and nothing is added that does. What the region gave to the separation is then

    T = AUROC as imaged - AUROC with the region hidden          paired, patients as clusters (DeLong 1988, Obuchowski 1997)
    p = P(|Z| >= |T| / s), Z normal with mean 0.02 / s          s the paired standard error of T

the largest p under |T| <= 0.02. A region beside the anatomy is never quite without the finding: the normalisation of an image, scatter and
the automatic choice of the window carry a little of it everywhere. So the null is not that nothing changes but that what
changes is small. Both directions count: where a marker goes with the label the other way round, hiding it helps. Holm over
regions and hospitals; a hospital with fewer than ten patients of either kind is not judged.

Regions, as shares of rows and columns: `border` the outermost 6% on each side; `markers` the two upper corners, 20% high and 20% wide, where
lead letters lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from common.messages import Estimate
from common.models.influence import Figure
from common.models.intervals import auroc_interval, difference_interval
from common.models.metrics import auroc_of
from common.statistics.permutation import holm
from common.types import FloatArray
from server.records_bias import Probe
from simulations.probes.contract import Images, Model, Seen, Truth
from simulations.probes.swap import ALL

MARGIN: Final = 0.02
"""AUROC that a region beside the anatomy may give or take: our choice; docs/probes.md has what shipped models lose."""
_BORDER: Final = 0.06
_CORNER: Final = 0.20
_LEAST: Final = 10

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Case:
    region: str
    where: str
    before: Figure
    after: Figure

    @property
    def p(self) -> float:
        """Of a change no larger than the margin."""
        change = self.before.minus(self.after)
        if change.error <= 0:
            return 1.0
        size, shift = abs(change.value) / change.error, MARGIN / change.error
        normal = NormalDist()
        return min(1.0, normal.cdf(shift - size) + normal.cdf(-shift - size))


def regions(rows: int, columns: int) -> dict[str, Mask]:
    """Which pixels are hidden, [rows, columns], by name of the region."""
    down, across = np.arange(rows)[:, None] / rows, np.arange(columns)[None, :] / columns
    edge = (down < _BORDER) | (down >= 1 - _BORDER) | (across < _BORDER) | (across >= 1 - _BORDER)
    corners = (down < _CORNER) & ((across < _CORNER) | (across >= 1 - _CORNER))
    return {"border": edge, "markers": corners}


def hidden(images: Images, mask: Mask) -> Images:
    """The images with the region replaced by its average over them."""
    changed = images.copy()
    changed[:, mask] = images[:, mask].mean(axis=0)
    return changed


def occlusion(model: Model, seen: Seen, masks: Mapping[str, Mask] | None = None) -> tuple[Probe, ...]:
    """What markers and borders give to the separation, among all and by hospital.

    Args:
        model: any.
        seen: test patients.
        masks: regions by name; `regions` of the images' shape where not given.
    """
    wanted = masks if masks is not None else regions(seen.images.shape[1], seen.images.shape[2])
    scopes: dict[str, Truth] = {ALL: np.ones(len(seen.truth), dtype=bool)}
    sites = seen.attributes.get("site")
    if sites is not None and len(np.unique(sites)) > 1:
        scopes |= {str(name): sites == name for name in np.unique(sites)}
    scopes = {name: which for name, which in scopes.items() if _enough(seen, which)}
    plain = model.logits(seen.images)
    cases = []
    for region, mask in wanted.items():
        without = model.logits(hidden(seen.images, mask))
        cases += [
            _Case(region, name, _area(plain, seen, which), _area(without, seen, which))
            for name, which in scopes.items()
        ]
    adjusted = holm(np.array([case.p for case in cases]))
    return tuple(_record(case, float(after)) for case, after in zip(cases, adjusted, strict=True))


def _enough(seen: Seen, which: Truth) -> bool:
    ill = set(seen.patients[which & seen.truth].tolist())
    healthy = set(seen.patients[which & ~seen.truth].tolist())
    return min(len(ill), len(healthy)) >= _LEAST


def _area(logits: FloatArray, seen: Seen, which: Truth) -> Figure:
    return auroc_of(logits[which], seen.truth[which], seen.patients[which])


def _record(case: _Case, adjusted: float) -> Probe:
    same = (
        np.array_equal(case.before.influence, case.after.influence) and case.before.value == case.after.value
    )
    change = (
        Estimate(0.0, 0.0, 0.0)
        if same
        else difference_interval(case.before, case.after, auroc_interval, 0.95)
    )
    return Probe(
        "occlusion", case.region, change, judged=True, patients=len(case.before.influence), where=case.where,
        p=case.p, holm=adjusted, before=auroc_interval(case.before, 0.95), after=auroc_interval(case.after, 0.95),
    )  # fmt: skip
