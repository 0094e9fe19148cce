"""Book-keeping against single backward passes: every kind of layer, every way, every number of images a patient."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from client.privacy.bookkeeping.engine import BookKeeping
from client.privacy.bookkeeping.layer import Seen
from client.privacy.bookkeeping.spans import Spans
from client.privacy.bookkeeping.ways import ways
from client.privacy.clipping import clip_factors
from client.privacy.engine import Labelled, PatientGradients
from client.privacy.opacus_engine import OpacusGradients
from common.errors import PrivacyRefused

SLOTS = {
    "one each": [0, 1, 2, 3, 4, 5],
    "two each": [0, 0, 1, 1, 2, 2],
    "uneven": [0, 1, 1, 1, 2, 2],
    "one patient": [0, 0, 0, 0, 0, 0],
}
LAYERS = {
    "conv 3x3": (lambda: nn.Conv2d(3, 5, 3, padding=1), (3, 7, 6)),
    "conv 3x3 without bias": (lambda: nn.Conv2d(3, 5, 3, padding=1, bias=False), (3, 7, 6)),
    "conv 1x1": (lambda: nn.Conv2d(4, 6, 1), (4, 5, 5)),
    "conv 1x1 strided": (lambda: nn.Conv2d(4, 6, 1, stride=2), (4, 5, 7)),
    "conv 7x7 strided": (lambda: nn.Conv2d(1, 4, 7, stride=2, padding=3), (1, 16, 15)),
    "conv dilated": (lambda: nn.Conv2d(2, 3, 3, padding=2, dilation=2), (2, 8, 8)),
    "conv uneven": (lambda: nn.Conv2d(2, 3, (3, 5), padding=(0, 2), stride=(2, 1)), (2, 9, 8)),
    "conv same": (lambda: nn.Conv2d(2, 3, 3, padding="same"), (2, 6, 6)),
    "conv grouped": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=2), (4, 6, 6)),
    "conv depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 6, 6)),
    "linear": (lambda: nn.Linear(7, 3), (7,)),
    "linear over tokens": (lambda: nn.Linear(7, 3), (5, 7)),
    "linear without bias": (lambda: nn.Linear(7, 3, bias=False), (2, 5, 7)),
    "group norm": (lambda: nn.GroupNorm(2, 6), (6, 5, 4)),
    "layer norm": (lambda: nn.LayerNorm(6), (5, 6)),
    "layer norm over two axes": (lambda: nn.LayerNorm((5, 6)), (3, 5, 6)),
    "one axis, known to Opacus alone": (lambda: nn.Conv1d(3, 4, 3), (3, 9)),
}


def by_hand(module, inputs, outputs, slots):
    """Each patient's gradient from backward passes of their own; [patients, numbers]."""
    rows = []
    for patient in range(max(slots) + 1):
        mine = [n for n, slot in enumerate(slots) if slot == patient]
        total = (module(inputs[mine]) * outputs[mine]).sum()
        found = torch.autograd.grad(total, list(module.parameters()))
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("slots", SLOTS.values(), ids=list(SLOTS))
@pytest.mark.parametrize("kind", LAYERS)
def test_every_way_of_every_layer_gives_norms_and_sums_of_single_passes(kind, slots):
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    module, inputs = make().double(), torch.randn(len(slots), *shape, dtype=torch.float64)
    outputs = torch.randn_like(module(inputs))
    wanted = by_hand(module, inputs, outputs, slots)
    factors = torch.rand(len(wanted), dtype=torch.float64)
    seen = Seen(inputs, outputs, Spans(torch.tensor(slots)))
    for name, make_way in ways(module, seen).items():
        way = make_way(seen)
        assert torch.allclose(way.squares(), wanted.square().sum(1), rtol=1e-10), name
        totals = way.totals(factors)
        found = torch.cat([totals[p].flatten() for p in module.parameters()])
        assert torch.allclose(found, factors @ wanted, rtol=1e-10, atol=1e-12), name


def test_a_convolution_has_all_its_ways_here():
    """So that the test above is known to have looked at each of them."""
    module, slots = nn.Conv2d(3, 5, 3, padding=1), torch.arange(4)
    inputs = torch.randn(4, 3, 6, 6)
    names = set(ways(module, Seen(inputs, module(inputs).detach(), Spans(slots))))
    assert names == {"loop", "looped", "grouped", "unfolded", "norm"}


class Twice(nn.Module):
    """One layer used two times, and one residual."""

    def __init__(self):
        super().__init__()
        self.shared, self.norm, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.shared(functional.tanh(self.norm(self.shared(x)) + x)).mean((2, 3)))


def loss(logits, targets, weights):
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")[:, 0] * weights


@pytest.mark.parametrize("slots", SLOTS.values(), ids=list(SLOTS))
def test_a_layer_that_is_used_twice_is_clipped_as_one(slots):
    torch.manual_seed(1)
    net, x, y = Twice().double(), torch.randn(6, 2, 5, 5).double(), torch.ones(6, 1).double()
    assert BookKeeping.fits(net)
    rows = []
    for patient in range(max(slots) + 1):
        mine = [n for n, slot in enumerate(slots) if slot == patient]
        mean = loss(net(x[mine]), y[mine], torch.ones(len(mine)).double()).mean()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(mean, list(net.parameters()))]))
    norms = torch.stack(rows).norm(dim=1)
    clip = float(norms.median())
    wanted = clip_factors(norms, clip) @ torch.stack(rows)
    for engine in (BookKeeping, OpacusGradients):
        with engine(net, loss) as gradients:
            found = gradients.clipped_sum(Labelled(x, y, torch.tensor(slots)), clip)
        assert torch.allclose(found, wanted, rtol=1e-9), engine


class Overwritten(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x).relu_()


def test_an_output_overwritten_in_place_is_refused_and_not_clipped_wrongly():
    with pytest.raises(PrivacyRefused) as refusal:
        BookKeeping(Overwritten(), loss).clipped_sum(
            Labelled(torch.ones(2, 3), torch.ones(2, 1), torch.arange(2)), 1.0
        )
    assert refusal.value.code == "dp-in-place"


class Bare(nn.Module):
    """A parameter that lies in no layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 1), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.layer(x) * self.scale


class Tied(nn.Module):
    """Two layers, one weight: their gradients would have to be added before they are measured."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)
        self.two.weight = self.one.weight


@pytest.mark.parametrize("net", [Bare(), Tied()])
def test_what_book_keeping_does_not_know_goes_to_opacus(net):
    assert not BookKeeping.fits(net)
    assert isinstance(PatientGradients(net, loss), OpacusGradients)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Conv2d(2, 3, 4, padding="same")],
)
def test_padding_that_no_engine_knows_is_refused(layer):
    with pytest.raises(PrivacyRefused) as refusal:
        PatientGradients(nn.Sequential(layer), loss)
    assert refusal.value.code == "dp-padding"
