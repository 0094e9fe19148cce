"""One forward and one backward pass, and every patient's gradient clipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from client.privacy.bookkeeping.layer import Kept, Seen, Totals, Way
from client.privacy.bookkeeping.spans import Spans
from client.privacy.bookkeeping.ways import cheapest, supported, ways
from client.privacy.clipping import Loss, clip_factors, unused
from common.errors import PrivacyRefused


@dataclass
class _Call:
    inputs: Tensor
    outputs: Tensor
    version: int


@dataclass
class BookKeeping:
    """Clipped per-patient gradients of a module whose every trainable parameter lies in a known layer.

    Args:
        module: inputs to logits; its parameters with requires_grad are the trainable ones.
        loss: per-image losses; must not mix the images of a batch.
    """

    module: nn.Module
    loss: Loss
    _chosen: dict[tuple[int, torch.Size, bool], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._parameters = [p for p in self.module.parameters() if p.requires_grad]
        self._layers = [m for m in self.module.modules() if any(p.requires_grad for p in _own(m))]

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether every trainable parameter lies in exactly one layer of a kind known here."""
        holders: dict[int, int] = defaultdict(int)
        for layer in module.modules():
            learns = [p for p in _own(layer) if p.requires_grad]
            if learns and not supported(layer):
                return False
            for parameter in learns:
                holders[id(parameter)] += 1
        return all(count == 1 for count in holders.values())

    def __enter__(self) -> Self:
        """Use as `with BookKeeping(...) as gradients`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays behind: hooks live for one pass only."""

    @property
    def size(self) -> int:
        """Number of trainable numbers."""
        return sum(p.numel() for p in self._parameters)

    @property
    def choices(self) -> dict[str, str]:
        """Of each layer met so far, by name, the way that was chosen."""
        names = {id(layer): name for name, layer in self.module.named_modules()}
        return {names[layer]: way for (layer, _, _), way in self._chosen.items()}

    def clipped_sum(self, inputs: Tensor, targets: Tensor, slots: Tensor, clip: float) -> Tensor:
        """Sum over patients of their mean gradient, clipped to `clip`; float64 [size].

        Args:
            inputs: [n, ...] images or feature maps.
            targets: [n, ...].
            slots: [n] int64, the patient of each image, ascending from 0, each at least once.
            clip: C.

        Raises:
            PrivacyRefused: `dp-unused` when a trainable parameter has no gradient at all;
                `dp-in-place` when a layer's output was overwritten.
        """
        seen = self._seen(inputs, targets, Spans(slots))
        with torch.no_grad():
            taken = [self._way(layer, calls) for layer, calls in seen.items()]
            norms = torch.stack([way.squares() for way in taken]).sum(dim=0).sqrt()
            factors = clip_factors(norms, clip)
            if not torch.isfinite(norms).all():
                return self._without_broken(seen, torch.isfinite(norms), factors)
            totals: Totals = {}
            while taken:  # a way holds its layer's tensors: let go of each as soon as it is summed
                totals |= taken.pop().totals(factors)
            return self._flat(totals)

    def _flat(self, totals: Totals) -> Tensor:
        missing = [p for p in self._parameters if p not in totals]
        if missing:
            raise unused()
        found = torch.empty(self.size, dtype=torch.float64, device=self._parameters[0].device)
        for part, parameter in zip(
            found.split([p.numel() for p in self._parameters]), self._parameters, strict=True
        ):
            part.copy_(totals.pop(parameter).reshape(-1))
        return found

    def _without_broken(self, seen: dict[nn.Module, list[Seen]], whole: Tensor, factors: Tensor) -> Tensor:
        """The sum where some patients' gradients are not finite: theirs are left out, 0 times inf is not 0."""
        if not whole.any():
            return torch.zeros(self.size, dtype=torch.float64, device=factors.device)
        keep = whole[next(iter(seen.values()))[0].spans.slots]
        spans = Spans(torch.unique(next(iter(seen.values()))[0].spans.slots[keep], return_inverse=True)[1])
        totals: Totals = {}
        for layer, calls in seen.items():
            cut = [Seen(call.inputs[keep], call.outputs[keep], spans) for call in calls]
            totals |= self._way(layer, cut).totals(factors[whole])
        return self._flat(totals)

    def _seen(self, inputs: Tensor, targets: Tensor, spans: Spans) -> dict[nn.Module, list[Seen]]:
        weights = torch.bincount(spans.slots).to(torch.float64).reciprocal()[spans.slots].to(inputs.dtype)
        with torch.enable_grad(), _recorded(self._layers) as calls:
            losses = self.loss(self.module(inputs), targets, torch.ones_like(weights))
        every = [(layer, call) for layer, of_layer in calls.items() for call in of_layer]
        if len(calls) < len(self._layers):
            raise unused()
        if any(call.outputs._version != call.version for _, call in every):  # noqa: SLF001 (torch's only way to tell)
            raise _overwritten()
        gradients = torch.autograd.grad(
            (losses * weights).sum(), [call.outputs for _, call in every], allow_unused=True
        )
        seen: dict[nn.Module, list[Seen]] = defaultdict(list)
        for (layer, call), gradient in zip(every, gradients, strict=True):
            if gradient is None:
                raise unused()
            seen[layer].append(Seen(call.inputs, gradient, spans))
        return seen

    def _way(self, layer: nn.Module, calls: list[Seen]) -> Way:
        if len(calls) > 1:
            return _several(layer, calls)
        (seen,) = calls
        makers = ways(layer, seen)
        key = (id(layer), seen.outputs.shape[1:], seen.spans.single)
        if self._chosen.get(key) not in makers:
            self._chosen[key] = cheapest(makers, seen)
        return makers[self._chosen[key]](seen)


def _several(layer: nn.Module, calls: list[Seen]) -> Way:
    """A layer used more than once in a pass: its gradients are made whole and added before they are measured."""
    kept: Totals = {}
    for seen in calls:
        patients = seen.spans.patients
        for slot, part in enumerate(seen.spans.parts()):
            one = Seen(seen.inputs[part], seen.outputs[part], Spans(torch.zeros_like(seen.spans.slots[part])))
            makers = ways(layer, one)
            totals = next(iter(makers.values()))(one).totals(one.outputs.new_ones(1, dtype=torch.float64))
            for parameter, total in totals.items():
                held = kept.setdefault(parameter, total.new_zeros(patients, *total.shape))
                held[slot] += total
    return Kept(kept)


@contextmanager
def _recorded(layers: list[nn.Module]) -> Iterator[dict[nn.Module, list[_Call]]]:
    """Note what goes in and out of the layers during one forward pass."""
    calls: dict[nn.Module, list[_Call]] = defaultdict(list)

    def note(layer: nn.Module, args: tuple[Any, ...], outputs: Tensor) -> None:
        """Keep one call."""
        calls[layer].append(_Call(args[0].detach(), outputs, outputs._version))  # noqa: SLF001

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    return module.parameters(recurse=False)


def _overwritten() -> PrivacyRefused:
    return PrivacyRefused(
        "network",
        "a layer's output is overwritten in place, so its gradient cannot be taken apart",
        "Use inplace=False in its activations",
        code="dp-in-place",
    )
