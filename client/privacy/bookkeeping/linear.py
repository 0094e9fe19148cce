"""Linear layers: inputs [images, ..., in], outputs [images, ..., out]."""

from __future__ import annotations

from torch import Tensor, nn

from client.privacy.bookkeeping.layer import Kept, Seen, Totals, Way, squared


def _positions(values: Tensor) -> Tensor:
    """[images, ..., channels] to [images, positions, channels]."""
    return values.reshape(values.shape[0], -1, values.shape[-1])


class LinearNorm(Way):
    """Ghost norm (Li et al. 2021): no patient's gradient is made; the sum is one ordinary product."""

    def __init__(self, layer: nn.Linear, seen: Seen) -> None:
        """Take one linear layer in one step."""
        self._weight = layer.weight
        self._seen = seen
        self._inputs, self._outputs = _positions(seen.inputs), _positions(seen.outputs)

    def squares(self) -> Tensor:
        """See `Way`."""
        spans = self._seen.spans
        inputs, outputs = spans.laid_out(self._inputs), spans.laid_out(self._outputs)
        if inputs.shape[1] == 1:
            return inputs.double().square().sum((1, 2)) * outputs.double().square().sum((1, 2))
        return squared(inputs @ inputs.mT, outputs @ outputs.mT)

    def totals(self, factors: Tensor) -> Totals:
        """See `Way`."""
        scaled = _positions(self._seen.scaled(factors)).flatten(0, 1)
        return {self._weight: scaled.mT @ self._inputs.flatten(0, 1)}


def linear_kept(layer: nn.Linear, seen: Seen) -> Kept:
    """Every patient's weight gradient."""
    inputs, outputs = (seen.spans.laid_out(_positions(v)) for v in (seen.inputs, seen.outputs))
    return Kept({layer.weight: [outputs.mT @ inputs]})


def linear_bias(layer: nn.Linear, seen: Seen) -> Kept:
    """Every patient's bias gradient."""
    return Kept({layer.bias: [seen.spans.sums(_positions(seen.outputs).sum(dim=1))]})
