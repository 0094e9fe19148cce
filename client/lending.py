"""Networks that are built once and used round after round, where nothing of a hospital can stay in them.

To build a small network takes as long as to train it on a few images, and a simulation does so for every hospital and
round. One is kept for the next only if all it holds is overwritten before it is used again: every parameter may learn,
there is no buffer, and no private mechanism has hung its hooks on it.
"""

from __future__ import annotations

import threading
from typing import Final

from client.device import channels_together
from common.models import Network, build
from common.plan import Plan

_idle: Final[dict[str, Network]] = {}
_mutex: Final = threading.Lock()


def borrow(plan: Plan) -> Network:
    """The plan's network, new or used; what it holds is for the caller to overwrite with `set_arrays`."""
    rows, columns = plan.input.shape[-2:]
    with _mutex:
        used = _idle.pop(_key(plan), None)
    if used is not None:
        return used
    net = build(plan.model, plan.task.outputs, (rows, columns))
    if not plan.private:
        channels_together(net)  # as a used one is: both give the same bits
    return net


def give_back(net: Network, plan: Plan) -> None:
    """Let the next round of any hospital in this process have it, where that is safe; not after an error.

    Args:
        net: of `borrow`; not to be used any more.
        plan: it was borrowed for.
    """
    if plan.private or any(True for _ in net.buffers()):
        return
    parameters = list(net.parameters())
    if not all(parameter.requires_grad for parameter in parameters):
        return
    for parameter in parameters:
        parameter.grad = None
    with _mutex:
        _idle.clear()  # one at a time: a process trains one plan after another
        _idle[_key(plan)] = net


def _key(plan: Plan) -> str:
    return repr((plan.model, plan.private, plan.task.outputs, plan.input.shape))
