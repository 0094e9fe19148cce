"""One forward and one backward pass, and every patient's gradient clipped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from client.privacy.bookkeeping.layer import Kept, Seen, Totals, Way
from client.privacy.bookkeeping.recording import Recording
from client.privacy.bookkeeping.room import Room
from client.privacy.bookkeeping.spans import Spans
from client.privacy.bookkeeping.ways import cheapest, supported, ways
from client.privacy.clipping import Clipped, Labelled, Loss, clip_factors, count_within, unused


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

    def clipped_sum(self, batch: Labelled, clip: float, out: Tensor | None = None) -> Tensor:
        """Sum over patients of their mean gradient, clipped to `clip`; [size].

        Args:
            batch: images or feature maps of whole patients, with their targets.
            clip: C.
            out: where the sum is written, [size]; a new float64 tensor when None.

        Raises:
            PrivacyRefused: `dp-unused` when a trainable parameter has no gradient at all;
                `dp-in-place` when a layer's output was overwritten.
        """
        return self.clipped(batch, clip, out).total

    def clipped(
        self, batch: Labelled, clip: float, out: Tensor | None = None, *, adding: bool = False
    ) -> Clipped:
        """The same with the number of patients whose gradient was not clipped; see `clipped_sum`.

        Args:
            batch: as there.
            clip: C.
            out: as there.
            adding: to what `out` holds already.
        """
        measured = self._measured(batch)
        norms = torch.stack([squares for _, squares in measured]).sum(dim=0).sqrt()
        whole = torch.isfinite(norms)
        room = Room(self._parameters, out, adding=adding)
        if not whole.all():
            del measured
            return self._without(~whole, batch, clip, room)
        factors = clip_factors(norms, clip)
        with torch.no_grad():
            while measured:  # a way holds its layer's tensors: let go of each as soon as it is summed
                room.put(measured.pop()[0].totals(factors))
        return Clipped(room.total, count_within(norms, clip))

    def _measured(self, batch: Labelled) -> list[tuple[Way, Tensor]]:
        """Every layer's way with the squared norms of the patients' gradients, in one pass forth and back."""
        spans = Spans(batch.slots)
        weights = spans.weights.to(batch.inputs.dtype)
        measured: list[tuple[Way, Tensor]] = []

        def arrived(layer: nn.Module, done: list[Seen]) -> None:
            """Measure a layer while its gradient is still in the processor's cache."""
            way = self._way(layer, done)
            measured.append((way, way.squares()))

        recording = Recording(self._layers, spans, arrived)
        logits = recording.forward(self.module, batch.inputs)
        recording.backward((self.loss(logits, batch.targets, torch.ones_like(weights)) * weights).sum())
        if len(measured) < len(self._layers):
            raise unused()
        return measured

    def _without(self, broken: Tensor, batch: Labelled, clip: float, room: Room) -> Clipped:
        """The sum where some patients' gradients are not finite: they contribute nothing, 0 times inf is not 0."""
        keep = ~broken[batch.slots]
        if not keep.any():
            return Clipped(room.nothing(), torch.zeros((), dtype=torch.int64, device=room.total.device))
        _, left = torch.unique(batch.slots[keep], return_inverse=True)
        others = Labelled(batch.inputs[keep], batch.targets[keep], left)
        return self.clipped(others, clip, room.total, adding=room.adding)

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
            maker = next(iter(ways(layer, one).values()))
            for parameter, total in maker(one).totals(torch.ones(1, dtype=torch.float64)).items():
                held = kept.setdefault(parameter, total.new_zeros(patients, *total.shape))
                held[slot] += total
    return Kept({parameter: [each] for parameter, each in kept.items()})


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    return module.parameters(recurse=False)
