"""What goes into each layer on the way forth, and what comes to its output on the way back.

Autograd is asked for the gradients of the first layers' outputs only; every other layer's output lies
on the way there. So no weight gradient is computed, and each output gradient is handed over the moment
it is whole, layer by layer from the last to the first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from client.privacy.bookkeeping.layer import Seen
from client.privacy.bookkeeping.spans import Spans
from common.errors import PrivacyRefused


class Recording:
    """One forward and one backward pass of a module.

    An output is held by nobody here: a hook waits where it was made, and holds the layer's input, which
    autograd holds as well. So a pass keeps what an ordinary one keeps.

    Args:
        layers: whose inputs and output gradients are wanted.
        spans: the patients of the batch.
        arrived: called with a layer and all its uses, without gradient, the moment the last is known.
    """

    def __init__(
        self, layers: list[nn.Module], spans: Spans, arrived: Callable[[nn.Module, list[Seen]], None]
    ) -> None:
        self._layers = layers
        self._spans = spans
        self._arrived = arrived
        self._uses: Counter[nn.Module] = Counter()
        self._done: dict[nn.Module, list[Seen]] = defaultdict(list)
        self._first: list[tuple[Tensor, int]] = []

    def forward(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Run the module and note every use of the layers."""
        handles = [layer.register_forward_hook(self._note) for layer in self._layers]
        try:
            with torch.enable_grad():
                outputs: Tensor = module(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    def backward(self, total: Tensor) -> None:
        """Send the gradient of `total`, a number, back.

        Raises:
            PrivacyRefused: `dp-in-place`.
        """
        if any(_version(outputs) != version for outputs, version in self._first):
            raise _overwritten()
        first = [outputs for outputs, _ in self._first]
        self._first.clear()
        if first:
            torch.autograd.grad(total, first, allow_unused=True)

    def _note(self, layer: nn.Module, args: tuple[Any, ...], outputs: Tensor) -> None:
        """Wait for the gradient of one output."""
        inputs = args[0]
        self._uses[layer] += 1
        if not inputs.requires_grad:
            self._first.append((outputs, _version(outputs)))
        held = [(inputs.detach(), _version(inputs), _statistics(outputs))]

        def take(gradient: Tensor) -> None:
            """Keep it, once, with the input; hand the layer over when this was the last of its uses."""
            kept, version, statistics = held.pop()
            if _version(kept) != version:
                raise _overwritten()
            self._take(layer, Seen(kept, gradient.detach(), self._spans, statistics))

        outputs.register_hook(take)  # type: ignore[no-untyped-call]

    def _take(self, layer: nn.Module, seen: Seen) -> None:
        done = self._done[layer]
        done.append(seen)
        if len(done) == self._uses[layer]:
            with torch.no_grad():
                self._arrived(layer, self._done.pop(layer))


def _version(tensor: Tensor) -> int:
    """How often it was overwritten; torch tells nowhere else."""
    return tensor._version  # noqa: SLF001


def _statistics(outputs: Tensor) -> tuple[Tensor, Tensor] | None:
    """Autograd keeps what group normalisation computed; to ask it saves another pass over the input."""
    made_by = outputs.grad_fn
    if made_by is None or made_by.name() != "NativeGroupNormBackward0":
        return None
    mean, inverse = (getattr(made_by, name, None) for name in ("_saved_result1", "_saved_result2"))
    return (mean, inverse) if isinstance(mean, Tensor) and isinstance(inverse, Tensor) else None


def _overwritten() -> PrivacyRefused:
    return PrivacyRefused(
        "network",
        "what a layer takes or gives is overwritten in place, so its gradient cannot be taken apart",
        "Use inplace=False in its activations",
        code="dp-in-place",
    )
