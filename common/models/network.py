"""What every network here is: a body that makes a feature map, and a head that makes logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from common.models.adapters import Adapted

Choice = Literal["all", "head", "last-block", "norms-and-head", "adapters"]
"""Which part may learn; the rest is frozen at its initial value. `adapters` come with the head."""

NORMS = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)


@dataclass(frozen=True)
class Blueprint:
    """What a network is, apart from its weights: the same blueprint gives the same tensor names."""

    name: str
    options: tuple[tuple[str, int | float | str | bool], ...]
    """Every option of the network with its value, defaults included, sorted by name."""
    trainable: Choice
    outputs: int
    shape: tuple[int, int]
    """Rows and columns of the input in pixels."""
    channels: int = 1


@dataclass(frozen=True)
class Parts:
    """What a builder returns."""

    body: nn.Module
    """Images [batch, channels, rows, columns] to a feature map [batch, features, rows', columns']."""
    head: nn.Module
    """Feature map to logits [batch, outputs]."""
    last_block: tuple[nn.Module, ...] = ()
    """The modules of the body that learn with the head under `last-block`."""


class Network(nn.Module):
    """A body and a head; `forward(x) = classify(features(x))`.

    Images are float32 [batch, channels, rows, columns]. No module holds a statistic of the data, so
    training and evaluation mode give the same numbers.

    Args:
        parts: body, head, and what `last-block` means.
        blueprint: name, options, trainable part, outputs and input shape.
    """

    def __init__(self, parts: Parts, blueprint: Blueprint) -> None:
        super().__init__()
        self.body = parts.body
        self.head = parts.head
        self.blueprint = blueprint
        self._select(blueprint.trainable, parts.last_block)

    def features(self, x: Tensor) -> Tensor:
        """The feature map [batch, features, rows', columns'] of images [batch, channels, rows, columns]."""
        return cast("Tensor", self.body(x))

    def classify(self, features: Tensor) -> Tensor:
        """Logits [batch, outputs] of a feature map made by `features`."""
        return cast("Tensor", self.head(features))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, outputs] of images [batch, channels, rows, columns]."""
        return self.classify(self.features(x))

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that may learn, by name, in the order of `named_parameters`."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def frozen_features(self) -> bool:
        """Whether `features` holds no trainable parameter, so that its maps may be computed once."""
        return not any(p.requires_grad for p in self.body.parameters())

    def _select(self, choice: Choice, last_block: tuple[nn.Module, ...]) -> None:
        """Freeze what `choice` leaves out; what the builder froze stays frozen."""
        learning: list[nn.Module] = [self.head]
        if choice == "all":
            learning.append(self.body)
        elif choice == "last-block":
            learning.extend(last_block)
        elif choice == "norms-and-head":
            learning.extend(m for m in self.body.modules() if isinstance(m, NORMS))
        elif choice == "adapters":
            learning.extend(side for m in self.body.modules() if isinstance(m, Adapted) for side in m.sides)
        kept = {id(p) for module in learning for p in module.parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in kept)


class PooledHead(nn.Sequential):
    """Average over the feature map, then one linear layer: [batch, features, r, c] to [batch, outputs]."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, outputs))
