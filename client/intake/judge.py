"""The quality gate as a worker sees it: pixels, tags and pose of one de-identified image, in this order."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from client.index_rows import Percentiles
from client.quality import QualityContext, check
from client.quality_pose import check_pose
from client.quality_tags import check_tags
from common.errors import FileRefused


def judge(
    pixels: npt.NDArray[np.float32],
    header: Dataset,
    percentiles: Percentiles | None,
    waived: Collection[str] = (),
) -> tuple[dict[str, float], FileRefused | None]:
    """Judge one image.

    Args:
        pixels: [rows, columns] or [frames, rows, columns] in modality units.
        header: of the de-identified image.
        percentiles: the site's own bounds for its modality and scanner.
        waived: codes `review-…` that a person has looked into; others stop the image all the same.

    Returns:
        every figure that was measured, and the refusal where there is one: the figures of refused images are
        kept, so that a hospital can see how far off they were.
    """
    context = QualityContext(str(header.Modality), str(header.get("DeviceSerialNumber", "")), percentiles)
    reports = (check(pixels, context), check_tags(header), check_pose(pixels, header))
    figures = {name: value for report in reports for name, value in report.figures.items()}
    for report in reports:
        if not report.ok and report.code not in waived:
            code = report.code or "quality"
            return figures, FileRefused("an image", report.rule, report.remedy, code=code)
    return figures, None
