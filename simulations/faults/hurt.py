"""How a fault is made to happen to a running federation, and to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from common.errors import FederationError
from simulations.faults.cases import AWAY, FROZEN, KILLED, NETWORK, REFUSED, SILENT, SLOW, STUCK, Fault
from simulations.faults.federation import Federation
from simulations.faults.relay import Relay, relay
from simulations.faults.toy import AT_WORK, HOLD, TRAINED

_POLL_S: Final = 0.02
_STOP_S: Final = 30.0
_AGAIN_S: Final = 300.0
_ONCE: Final = ("clientapp",)
"""Started for each question only, so that nobody waits for it to come back."""


@dataclass
class Hurting:
    """A federation, and what is needed to hurt it."""

    made: Federation
    between: Relay | None = None
    """Between the slow hospital and the edge, where the network is to be cut."""

    def happen(self, fault: Fault, pid: int | None, sound: Callable[[], None]) -> tuple[datetime, datetime]:
        """Make it happen and wait for its end; gives when it began and when what was hurt was there again.

        Args:
            fault: what happens.
            pid: of the process that is hurt; None where it is no process.
            sound: called when it has happened.

        Raises:
            FederationError: code `timeout` when what was hurt did not come back, `missed` when it had ended already.
        """
        at = datetime.now(UTC)
        if fault.way in (KILLED, STUCK):
            self._ended(fault, pid)
            sound()
            if fault.what in _ONCE:
                return at, at
            side = self.made.sides[fault.side]
            again = f"{fault.what} again"
            self.made.until(lambda: side.pid(fault.what) not in (None, pid), again, _AGAIN_S)
            return at, datetime.now(UTC)
        self._begin(fault, pid)
        sound()
        time.sleep(fault.seconds)
        back = datetime.now(UTC)
        self._end(fault, pid)
        return at, back

    def _ended(self, fault: Fault, pid: int | None) -> None:
        if fault.what == "supervisor":
            self.made.kill(fault.side, fault.what)
            return
        try:
            if fault.way == STUCK:
                os.killpg(os.getpgid(pid or -1), signal.SIGSTOP)
            else:
                os.kill(pid or -1, signal.SIGKILL)
        except ProcessLookupError:
            raise FederationError(fault.what, "it had ended already", "Try again", code="missed") from None

    def _begin(self, fault: Fault, pid: int | None) -> None:
        if fault.way == FROZEN and pid is not None:
            os.killpg(pid, signal.SIGSTOP)
        elif fault.way == AWAY:
            side = self.made.sides[fault.side]
            side.process.send_signal(signal.SIGTERM)
            side.process.wait(_STOP_S)
        elif fault.way == REFUSED and self.between is not None:
            self.between.refuse()
        elif fault.way == SILENT and self.between is not None:
            self.between.silence()

    def _end(self, fault: Fault, pid: int | None) -> None:
        if fault.way == FROZEN and pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)
        elif fault.way == AWAY:
            side = self.made.sides[fault.side]
            side.process = side.again()
        elif self.between is not None:
            self.between.heal()

    def hold(self) -> None:
        """The slow hospital's trainings do not end from now on."""
        self._state(HOLD).touch()

    def release(self) -> None:
        """They end after the time they take."""
        self._state(HOLD).unlink(missing_ok=True)

    def trains(self, round_: int) -> bool:
        """Whether the slow hospital is training in this round."""
        with suppress(OSError):
            return self._state(AT_WORK).read_text() == str(round_)
        return False

    def trainings(self, round_: int) -> int:
        """How often it began to train in this round."""
        with suppress(OSError):
            return self._state(TRAINED).read_text().split().count(str(round_))
        return 0

    def ended_work(self, round_: int) -> None:
        """Let its training end at once, and come back as soon as it has.

        Raises:
            FederationError: code `timeout`.
        """
        self.made.pace(SLOW, 0.0)
        self.release()
        deadline = time.monotonic() + _STOP_S
        while self.trains(round_):
            if time.monotonic() > deadline:
                raise FederationError(SLOW, "its training did not end", "Read its log", code="timeout")
            time.sleep(_POLL_S)

    def _state(self, name: str) -> Path:
        return self.made.folder / SLOW / "state" / name


@contextmanager
def hurting(made: Federation, faults: tuple[Fault, ...]) -> Iterator[Hurting]:
    """Ready to do these faults; where the network is to be cut, the slow hospital's way is led through a relay."""
    if not any(fault.what == NETWORK for fault in faults):
        yield Hurting(made)
        return
    edge = int(made.consortium.settings.federation.addresses[0].rpartition(":")[2])
    with relay(edge) as between:
        with (made.sites[SLOW].folder / "site.toml").open("a") as settings:
            settings.write(f'address = "127.0.0.1:{between.port}"\n')
        made.kill(SLOW, "supervisor")
        yield Hurting(made, between)
