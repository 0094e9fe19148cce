"""A pull and a watch from beginning to end, as the commands give them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from client.pacs.arrivals import Arrivals
from client.pacs.connect import connection
from client.pacs.drain import Drain
from client.pacs.journal import Journal
from client.pacs.pace import Pace
from client.pacs.pull import Pulled, Puller
from client.pacs.query import StudyFound, Wanted, find
from client.pacs.remote import Caller
from client.pacs.watch import Seen, Watch
from client.pacs.web import Web
from client.site import Site
from common.audit import AuditLog
from common.errors import ConsiliumError, PacsError
from common.logs import Log

_LOG: Final = Log("client.pacs")
LONGEST_PAUSE_S: Final = 60.0
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Order:
    """What to pull, from where and how."""

    caller: Caller
    wanted: Wanted
    via: str | None = None
    attempts: int = 3
    again: bool = False


def pull(site: Site, order: Order, drain: Drain, progress: Progress) -> Pulled:
    """Fetch what is wanted into the inbox; a line in the audit log says how much.

    Args:
        site: the hospital.
        order: what to fetch.
        drain: makes room in the inbox on the way.
        progress: called with instances here and instances wanted.

    Raises:
        PacsError: the archive cannot be asked at all. What goes wrong later is in the report.
        StorageError: journal, inbox or audit log cannot be written.
    """
    caller = order.caller
    with Journal.of(site) as journal:
        count = _Count(progress)
        arrivals = Arrivals(drain.inbox, journal, Pace(caller.remote.instances_per_s), count.one_more)
        with connection(site, caller, order.via, arrivals) as linked:
            studies = list(find(linked.finder, order.wanted))
            count.begin(journal, studies, again=order.again)
            puller = Puller(caller.name, linked, arrivals, order.attempts, drain.room, order.again)
            report = puller.run(studies)
    report.accessions_not_found = len(
        set(order.wanted.accessions or ()) - {study.accession for study in studies}
    )
    AuditLog(site.audit).append(
        "pacs.pulled",
        kind=report.via,
        images=report.instances,
        count=report.whole,
        expected=report.studies,
        code=report.stopped.code if report.stopped else "done",
    )
    return report


@dataclass
class _Count:
    """Instances here, of those wanted."""

    tell: Progress
    here: int = 0
    wanted: int = 0

    def begin(self, journal: Journal, studies: list[StudyFound], *, again: bool) -> None:
        """Count what was there before."""
        series = [one for study in studies for one in study.series]
        self.wanted = sum(one.instances for one in series)
        self.here = 0 if again else sum(min(journal.count(one.uid), one.instances) for one in series)
        self.tell(self.here, self.wanted)

    def one_more(self) -> None:
        """An instance came."""
        self.here += 1
        self.tell(self.here, max(self.here, self.wanted))


@dataclass
class Watcher:
    """One watch of Orthanc's changes, until it is stopped.

    Args:
        site: the hospital.
        caller: the archive.
        wanted: what of it.
        drain: takes in what came.
        every_s: seconds between two looks.
        stopping: set by somebody to end it.
        tell: called after each look.
    """

    site: Site
    caller: Caller
    wanted: Wanted
    drain: Drain
    every_s: float = 10.0
    stopping: threading.Event = field(default_factory=threading.Event)
    tell: Callable[[Seen], None] = lambda _seen: None

    def run(self, *, once: bool) -> Seen:
        """Look until stopped; with `once`, until everything that is there has been dealt with.

        An archive that is away is waited for, with growing pauses; with `once` it is an error.

        Raises:
            PacsError: with `once`, the archive does not answer; else what no waiting mends.
            StorageError: the inbox takes no more and cannot be emptied.
        """
        remote = self.caller.remote
        if not remote.orthanc:
            raise PacsError(
                f"remote {remote.name}",
                "it cannot be watched: site.toml gives it no `orthanc` address",
                "Add one, or let the archive forward to `pacs listen`, or repeat `pacs pull`",
                code="pacs-unsupported",
            )
        with Journal.of(self.site) as journal, Web(self.caller, remote.orthanc, "REST") as web:
            arrivals = Arrivals(self.drain.inbox, journal, Pace(remote.instances_per_s))
            watch = Watch(remote.name, web, arrivals, self.wanted, self.drain.room)
            self._loop(watch, once=once)
        return watch.seen

    def _loop(self, watch: Watch, *, once: bool) -> None:
        pause = 1.0
        while not self.stopping.is_set():
            try:
                self._look(watch, once=once)
                pause = 1.0
            except PacsError as error:
                if once or error.code in ("pacs-auth", "pacs-forbidden", "pacs-tls", "pacs-answer"):
                    raise
                _LOG.warning("pacs.watch_waits", code=error.code, seconds=pause)
                self.stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            if once and not watch.failing:
                return
            self.stopping.wait(1.0 if once else self.every_s)

    def _look(self, watch: Watch, *, once: bool) -> None:
        watch.look()
        try:
            self.drain.run()
        except ConsiliumError as error:
            if once:
                raise
            _LOG.warning("pacs.take_waits", code=error.code, seconds=self.every_s)
        self.tell(watch.seen)
