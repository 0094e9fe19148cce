"""What is made to go wrong: which process or way, of which side, at which moment of a round, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from simulations.faults.federation import SERVER

SITES: Final = {"alpha": 100, "beta": 200}
SLOW: Final = "beta"
"""The site that takes longer, so that the other's update is in while it still works; every hospital's fault is its."""

KILLED, FROZEN, STUCK, REFUSED, SILENT, AWAY = "killed", "frozen", "stuck", "refused", "silent", "away"
"""Ways to hurt. `killed`: SIGKILL. `frozen`: SIGSTOP and, later, SIGCONT. `stuck`: SIGSTOP, and nobody wakes it. `refused`: every connection of the hospital
to the edge is dropped and none is taken. `silent`: connections stay and nothing passes, as when a cable is pulled.
`away`: the whole side is stopped, and started again later."""
ASKED, TRAINING, HALF, REPLY = "asked", "training", "half", "reply"
"""Moments. `asked`: the round has just begun, its questions are on their way. `training`: the slow hospital works.
`half`: it works, and the other's update is in. `reply`: it has just ended its work, its answer is on its way."""
NETWORK: Final = "network"
EVERYTHING: Final = "everything"
"""What may be hurt besides the processes by name."""
_MOMENTS: Final = (ASKED, TRAINING, HALF, REPLY)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    side: str
    what: str
    moment: str
    way: str = KILLED
    seconds: float = 0.0
    """How long it stays so, where nothing but time ends it."""
    secured: bool = False
    """In a federation with edge, tunnels and TLS; else on plain loopback."""

    @property
    def name(self) -> str:
        """By which one fault is chosen on the command line, as `tls-beta-tunnel-killed-half`."""
        lasting = f"-{self.seconds:g}" if self.seconds else ""
        return f"{'tls-' if self.secured else ''}{self.side}-{self.what}-{self.way}{lasting}-{self.moment}"


_CLIENTAPP: Final = "clientapp"
"""It is started by the question, so that there is none to hurt when the question has just been put."""


def _killed(of: tuple[tuple[str, str], ...], moments: tuple[str, ...], *, secured: bool) -> Iterator[Fault]:
    for side, what in of:
        for moment in moments:
            if (what, moment) != (_CLIENTAPP, ASKED):
                yield Fault(side, what, moment, secured=secured)


FAULTS: Final = tuple(
    _killed(
        (
            (SERVER, "superlink"),
            (SERVER, "serverapp"),
            (SERVER, "executor"),
            (SERVER, "supervisor"),
            (SLOW, "service"),
            (SLOW, "node"),
            (SLOW, "executor"),
            (SLOW, _CLIENTAPP),
            (SLOW, "supervisor"),
        ),
        _MOMENTS,
        secured=False,
    )
)
"""Every process of a federation on plain loopback, at every moment."""

SECURED: Final = (
    *_killed(((SERVER, "edge"), (SLOW, "tunnel"), (SLOW, "node")), _MOMENTS, secured=True),
    *_killed(
        (
            (SERVER, "api"),
            (SLOW, "renewal"),
            (SERVER, "superlink"),
            (SERVER, "serverapp"),
            (SERVER, "executor"),
            (SERVER, "supervisor"),
            (SLOW, "service"),
            (SLOW, "executor"),
            (SLOW, _CLIENTAPP),
            (SLOW, "supervisor"),
        ),
        (HALF,),
        secured=True,
    ),
)
"""Of a federation with TLS: what plain loopback does not have at every moment, and everything else at one."""

CUT: Final = (
    Fault(SLOW, NETWORK, HALF, REFUSED, 20.0, secured=True),
    Fault(SLOW, NETWORK, TRAINING, SILENT, 20.0, secured=True),
    Fault(SLOW, NETWORK, REPLY, SILENT, 20.0, secured=True),
    Fault(SLOW, NETWORK, HALF, SILENT, 90.0, secured=True),
    Fault(SLOW, "tunnel", HALF, FROZEN, 20.0, secured=True),
    Fault(SERVER, "edge", HALF, FROZEN, 20.0, secured=True),
    Fault(SERVER, "superlink", REPLY, FROZEN, 20.0, secured=True),
)
"""Nobody dies, and for a while nothing gets through."""

AWAY_S: Final = 600.0
LEFT: Final = (Fault(SLOW, EVERYTHING, TRAINING, AWAY, AWAY_S),)
"""A hospital away for ten minutes."""

STOOD: Final = (Fault(SLOW, "service", TRAINING, STUCK), Fault(SERVER, "superlink", HALF, STUCK))
"""A process that stands still for good: its supervisor must find that out."""

ALL: Final = (*FAULTS, *SECURED, *CUT, *LEFT, *STOOD)
