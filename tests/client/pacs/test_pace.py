"""The rate limit: by a clock of the test's own, and once by the real one through a real pull."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from client.pacs.drain import Drain
from client.pacs.inbox import Inbox
from client.pacs.order import Watcher
from client.pacs.pace import Pace
from client.pacs.query import Wanted
from client.pacs.remote import find_remote
from tests.client.pacs.archive import remote_of, site_of, typed
from tests.client.pacs.test_watch import stable
from tests.orthanc import Orthanc
from tests.studies import ct_study


class FakeClock:
    """A clock that moves when somebody sleeps, by as much as asked or a little less."""

    def __init__(self, short: float = 0.0) -> None:
        self.time, self.slept, self.short = 1000.0, 0.0, short

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds * (1 - self.short)
        self.slept += seconds


@pytest.mark.parametrize("rate", [0.5, 1.0, 7.0, 50.0])
def test_no_more_than_the_rate_comes(rate: float) -> None:
    """n instances take at least (n - burst) / rate, and not much more."""
    clock = FakeClock()
    pace = Pace(rate, clock)
    for _ in range(200):
        pace.wait()
    passed = clock.time - 1000.0
    burst = max(1.0, rate * 0.2)
    assert passed == pytest.approx((200 - burst) / rate, rel=1e-6)


def test_a_pause_does_not_save_up() -> None:
    """After an hour of nothing no more may come at once than at the start."""
    clock = FakeClock()
    pace = Pace(10.0, clock)
    clock.time += 3600
    begun = clock.time
    for _ in range(102):
        pace.wait()
    assert clock.time - begun == pytest.approx(10.0)


def test_a_sleep_that_is_too_short_is_owed() -> None:
    """Clocks wake early; over many instances the rate holds nevertheless."""
    clock = FakeClock(short=0.1)
    pace = Pace(10.0, clock)
    for _ in range(500):
        pace.wait()
    assert 500 / (clock.time - 1000.0) < 10.1


@pytest.mark.parametrize("via", ["get", "web", "move"])
def test_a_real_pull_keeps_the_rate(orthanc: Orthanc, tmp_path: Path, via: str) -> None:
    """40 instances at 20 a second: at least 1.8 seconds, by every way."""
    orthanc.upload(*ct_study(0, 40, size=32))
    site = site_of(tmp_path, orthanc, remote_of(orthanc, instances_per_s=20.0))
    done = typed(site, "pull", "--via", via, "--no-take", "--json")
    answer = json.loads(done.stdout)["pulled"]
    assert answer["instances"] == 40
    assert answer["seconds"] >= 1.8


def test_a_watch_keeps_the_rate(orthanc: Orthanc, tmp_path: Path) -> None:
    """The same 40 instances at the same rate, where nobody orders them one by one."""
    orthanc.upload(*ct_study(0, 40, size=32))
    site = site_of(tmp_path, orthanc, remote_of(orthanc, instances_per_s=20.0))
    stable(orthanc, 1)
    watcher = Watcher(site, find_remote(site, None), Wanted(), Drain(site, Inbox.of(site), take=False))
    begun = time.monotonic()
    assert watcher.run(once=True).instances == 40
    assert time.monotonic() - begun >= 1.8
