"""A network's trainable weights as plain arrays, and the digest of what they fit into.

Only trainable parameters travel: buffers never do, because a running statistic is patient data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import numpy.typing as npt
import torch

from common.errors import InputError
from common.models.network import Network
from common.types import Arrays, Digest


def get_arrays(net: Network) -> dict[str, npt.NDArray[np.float32]]:
    """Copies of the trainable parameters, float32, by name, in the order of `named_parameters`."""
    return {
        name: parameter.detach().to("cpu", torch.float32).numpy().copy()
        for name, parameter in net.trainable().items()
    }


def set_arrays(net: Network, arrays: Arrays) -> None:
    """Overwrite every trainable parameter; nothing is changed when anything does not fit.

    Args:
        net: the network to fill.
        arrays: exactly its trainable parameters by name, float32, finite, of its shapes.

    Raises:
        InputError: code `arrays`, naming the first tensor that does not fit.
    """
    own = net.trainable()
    for problem in (_misfit(name, arrays.get(name), own.get(name)) for name in own.keys() | arrays.keys()):
        if problem:
            raise InputError("model weights", problem, "Send the weights of this plan's model", code="arrays")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name], dtype=np.float32)))


def _misfit(
    name: str, array: npt.NDArray[np.generic] | None, parameter: torch.nn.Parameter | None
) -> str | None:
    if parameter is None:
        return f"the model has no trainable tensor named {name[:80]!r}"
    if array is None:
        return f"the tensor {name!r} is missing"
    if array.dtype != np.float32 or array.shape != tuple(parameter.shape):
        return f"the tensor {name!r} must be float32 of shape {tuple(parameter.shape)}"
    return None if np.isfinite(array).all() else f"the tensor {name!r} holds a value that is not finite"


def architecture_digest(net: Network) -> Digest:
    """SHA-256 over the blueprint and the name, shape and dtype of every parameter and buffer.

    Two networks with the same digest take each other's arrays. The weights themselves do not enter.
    """
    tensors = {
        name: [list(t.shape), str(t.dtype), bool(t.requires_grad)]
        for source in (net.named_parameters(), net.named_buffers())
        for name, t in source
    }
    document = {"blueprint": dataclasses.asdict(net.blueprint), "tensors": tensors}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())
