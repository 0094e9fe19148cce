"""What goes into each layer on the way forth, and what comes to its output on the way back.

Autograd is asked for the gradients of the first layers' outputs only; every other layer's output lies
on the way there. So no weight gradient is computed, and each output gradient is handed over the moment
it is whole, layer by layer from the last to the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from client.privacy.bookkeeping.layer import Seen
from client.privacy.bookkeeping.spans import Spans
from common.errors import PrivacyRefused


@dataclass
class Call:
    """One use of a layer."""

    inputs: Tensor
    outputs: Tensor
    version: int
    """Of the output when it was made; torch counts every overwriting."""
    first: bool
    """Whether nothing that learns lies before it."""
    statistics: tuple[Tensor, Tensor] | None
    """What group normalisation computed of its groups: mean and inverse deviation, [images, groups]."""


def forward(
    module: nn.Module, layers: list[nn.Module], inputs: Tensor
) -> tuple[Tensor, dict[nn.Module, list[Call]]]:
    """Run a module and note every use of the layers.

    Returns:
        the module's output, and the calls of each layer in order.
    """
    calls: dict[nn.Module, list[Call]] = defaultdict(list)

    def note(layer: nn.Module, args: tuple[Any, ...], outputs: Tensor) -> None:
        """Keep one call."""
        version = outputs._version  # noqa: SLF001 (torch's only way to tell)
        first = not args[0].requires_grad
        calls[layer].append(Call(args[0].detach(), outputs, version, first, _statistics(outputs)))

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.enable_grad():
            return module(inputs), calls
    finally:
        for handle in handles:
            handle.remove()


def backward(
    total: Tensor,
    calls: dict[nn.Module, list[Call]],
    spans: Spans,
    arrived: Callable[[nn.Module, list[Seen]], None],
) -> None:
    """Send the gradient of `total` back and hand over each layer once all its uses are known.

    Args:
        total: the batch's loss, a number.
        calls: of the forward pass; emptied.
        spans: the patients of the batch.
        arrived: called with a layer and all its uses; without gradient.

    Raises:
        PrivacyRefused: `dp-in-place`.
    """
    first = [use.outputs for uses in calls.values() for use in uses if use.first]
    for layer, uses in calls.items():
        done: list[Seen] = []

        def complete(layer: nn.Module = layer, done: list[Seen] = done, uses: int = len(uses)) -> None:
            """Hand the layer over when this was the last of its uses."""
            if len(done) == uses:
                whole = list(done)
                done.clear()  # the graph outlives this: it must not keep what the layer no longer needs
                with torch.no_grad():
                    arrived(layer, whole)

        for use in uses:
            if use.outputs._version != use.version:  # noqa: SLF001
                raise _overwritten()
            use.outputs.register_hook(_taker(use, spans, done, complete))  # type: ignore[no-untyped-call]
    calls.clear()
    torch.autograd.grad(total, first, allow_unused=True)


def _taker(
    use: Call, spans: Spans, done: list[Seen], complete: Callable[[], None]
) -> Callable[[Tensor], None]:
    """What takes the gradient of one output, once; it holds the input till then, and never the output."""
    held = [(use.inputs, use.statistics)]

    def take(gradient: Tensor) -> None:
        """Keep it, and say so."""
        inputs, statistics = held.pop()
        done.append(Seen(inputs, gradient.detach(), spans, statistics))
        complete()

    return take


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
        "a layer's output is overwritten in place, so its gradient cannot be taken apart",
        "Use inplace=False in its activations",
        code="dp-in-place",
    )
