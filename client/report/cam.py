"""Grad-CAM: where in an image the evidence for the finding lies.

R. Selvaraju et al., Grad-CAM, ICCV 2017. Gradients are taken with respect to the feature map only, so the
maps exist for every network, also when all its parameters are frozen, and no parameter is touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from common.errors import DataError

if TYPE_CHECKING:
    import torch

    from common.models import Network

_CHUNK: Final = 16
"""Images at once; bounds memory for DenseNet at 96 pixels below 1 GiB."""


def gradcam(net: Network, images: torch.Tensor, output: int = 0) -> npt.NDArray[np.float32]:
    """Maps of the evidence for one output.

    Args:
        net: any network with `features` and `classify`; its mode and its gradients are left as they were.
        images: float32 [n, 1, rows, columns].
        output: index of the logit explained.

    Returns:
        float32 [n, rows, columns], each in [0, 1] with maximum 1, or all 0 where nothing speaks for it.

    Raises:
        DataError: when `images` has not four dimensions, or there is no such output.
    """
    import torch  # noqa: PLC0415 - the package is imported by processes without torch

    if images.ndim != 4:
        raise DataError(
            "images to explain", "they must be [n, 1, rows, columns]", "Add the channel dimension"
        )
    training = net.training
    net.eval()
    try:
        maps = [_chunk(net, part, output) for part in torch.split(images, _CHUNK)]
    finally:
        net.train(training)
    if not maps:
        return np.zeros((0, *images.shape[-2:]), dtype=np.float32)
    return torch.cat(maps).cpu().numpy().astype(np.float32)


def _chunk(net: Network, images: torch.Tensor, output: int) -> torch.Tensor:
    import torch  # noqa: PLC0415 - see above

    place = next(net.parameters()).device
    with torch.no_grad():
        features = net.features(images.to(place))
    with torch.enable_grad():
        features = features.detach().requires_grad_(True)
        logits = net.classify(features)
        if output >= logits.shape[1]:
            raise DataError("output to explain", f"the model has {logits.shape[1]}", "Count from 0")
        (gradient,) = torch.autograd.grad(logits[:, output].sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = torch.relu((weights * features.detach()).sum(dim=1, keepdim=True))
    rows, columns = images.shape[-2], images.shape[-1]
    heat = torch.nn.functional.interpolate(
        heat, size=(rows, columns), mode="bilinear", align_corners=False
    ).squeeze(1)
    most = heat.amax(dim=(1, 2), keepdim=True)
    return torch.where(most > 0, heat / most.clamp_min(1e-12), torch.zeros_like(heat)).clamp(0, 1)
