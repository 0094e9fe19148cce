"""Fetch what is wanted into the inbox, study by study; what was fetched before is not asked for again.

Laws, in order:
1. An instance is noted after it is on the disk of the inbox; a pull that was killed repeats at most what was
   not noted.
2. A series is whole when as many instances are noted as the archive counts, or when every instance that the archive
   names, and that this site can use, is noted.
3. A study that fails is tried again after growing pauses, then noted with its reason, and the others go on. What
   no repetition mends (a wrong AE title, a password, a full disk) ends the pull at once.
4. An archive that does not answer for several studies running ends it too.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from client.pacs.arrivals import Arrivals
from client.pacs.failures import check_uid
from client.pacs.fetch import CLASSES, Connection, Target, only_images
from client.pacs.pace import Clock, SystemClock
from client.pacs.query import SeriesFound, StudyFound
from common.errors import ConsiliumError, PacsError
from common.logs import Log

FATAL: Final = frozenset(
    (
        "pacs-ae-title",
        "pacs-tls",
        "pacs-auth",
        "pacs-proxy",
        "pacs-port",
        "pacs-unsupported",
        "pacs-destination",
    )
)
"""Codes that hold for every study alike."""
AWAY: Final = frozenset(("pacs-unreachable", "pacs-refused", "pacs-timeout"))
"""Codes that say that the archive is not there."""
GIVE_UP: Final = 3
"""Studies running for which the archive is not there."""
STUCK: Final = 5
"""Orders running that bring nothing, after which a series is left for this attempt."""
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 30.0
_LOG: Final = Log("client.pacs")


@dataclass(frozen=True)
class Failed:
    """One study that is not whole."""

    study: str
    """Its keyed code."""
    code: str
    rule: str
    remedy: str


@dataclass
class Pulled:
    """What a pull did."""

    remote: str
    via: str
    studies: int = 0
    """Wanted."""
    whole: int = 0
    """Of them, complete now, or before."""
    instances: int = 0
    """New in the inbox."""
    passed_over: int = 0
    """Instances of a kind that this site cannot use, such as reports; not fetched."""
    accessions_not_found: int = 0
    failed: list[Failed] = field(default_factory=list)
    stopped: Failed | None = None
    """Why it ended early."""
    seconds: float = 0.0

    @property
    def reasons(self) -> dict[str, int]:
        """Failed studies by code."""
        return dict(sorted(Counter(one.code for one in self.failed).items()))


@dataclass
class Puller:
    """One pull.

    Args:
        remote: name of the archive.
        connection: how to ask and fetch.
        arrivals: where to.
        attempts: how often a study is tried.
        room: called before each study; may make room in the inbox, and raises when there is none.
        again: whether what was fetched before is forgotten and fetched once more.
    """

    remote: str
    connection: Connection
    arrivals: Arrivals
    attempts: int = 3
    room: Callable[[], None] = lambda: None
    again: bool = False
    clock: Clock = field(default_factory=SystemClock)
    _passed_over: int = 0

    def run(self, studies: Sequence[StudyFound]) -> Pulled:
        """Fetch these studies; whatever happens is in the report."""
        begun = time.monotonic()
        report = Pulled(self.remote, self.connection.way.name, studies=len(studies))
        away = 0
        try:
            for study in studies:
                self.room()
                error = self._study(study)
                away = away + 1 if error is not None and error.code in AWAY else 0
                if error is None:
                    report.whole += 1
                else:
                    report.failed.append(self._failed(study, error))
                if error is not None and away >= GIVE_UP:
                    raise error
        except ConsiliumError as error:
            report.stopped = Failed("", error.code, f"{error.subject}: {error.rule}", error.remedy)
        report.instances, report.passed_over = self.arrivals.new, self._passed_over
        report.seconds = time.monotonic() - begun
        _LOG.info("pacs.pulled", images=report.instances, count=report.whole, seconds=report.seconds)
        return report

    def _failed(self, study: StudyFound, error: PacsError) -> Failed:
        return Failed(
            self.arrivals.journal.code(study.uid), error.code, f"{error.subject}: {error.rule}", error.remedy
        )

    def _study(self, study: StudyFound) -> PacsError | None:
        """Fetch one study in several attempts; the last error, or None when it is whole.

        Raises:
            PacsError: a code of `FATAL`.
            StorageError: the inbox takes no more.
        """
        journal, error = self.arrivals.journal, None
        journal.begin(self.remote, study.uid)
        if self.again:
            for one in study.series:
                journal.forget(one.uid)
        for attempt in range(self.attempts):
            if attempt:
                self.clock.sleep(min(FIRST_PAUSE_S * 4 ** (attempt - 1), LAST_PAUSE_S))
            before = self._passed_over
            error = self._attempt(study, together=attempt == 0)
            if error is None or error.code == "pacs-uid":
                break
            self._passed_over = before
        journal.end(self.remote, study.uid, "" if error is None else error.code)
        if error is not None:
            _LOG.warning("pacs.study_failed", code=error.code, digest=journal.code(study.uid))
        return error

    def _attempt(self, study: StudyFound, *, together: bool) -> PacsError | None:
        error = None
        for series in study.series:
            try:
                check_uid(self.remote, study.uid)
                check_uid(self.remote, series.uid)
                self._series(study, series, together=together)
            except PacsError as failure:
                if failure.code in FATAL:
                    raise
                error = failure
                if failure.code in AWAY:
                    break
        return error

    def _series(self, study: StudyFound, series: SeriesFound, *, together: bool) -> None:
        """Fetch what is missing of one series.

        Raises:
            PacsError: some of it did not come.
        """
        journal, way = self.arrivals.journal, self.connection.way
        held = journal.count(series.uid)
        if series.instances and held >= series.instances:
            return
        error = None
        if together and way.whole_series and not held and only_images(series.modality):
            error = self._order(Target(study.uid, series.uid, (), series.modality))
            if series.instances and journal.count(series.uid) >= series.instances:
                return
        found = self.connection.finder.instances(
            study.uid, series.uid, classes=not only_images(series.modality)
        )
        usable = [one.uid for one in found if not one.sop_class or one.sop_class in CLASSES]
        self._passed_over += len(found) - len(usable)
        missing = [uid for uid in usable if not journal.has(uid)]
        error = self._orders(study, series, missing, together=together) or error
        left = sum(not journal.has(uid) for uid in missing)
        if left:
            raise error or _incomplete(self.remote)

    def _orders(
        self, study: StudyFound, series: SeriesFound, missing: Sequence[str], *, together: bool
    ) -> PacsError | None:
        """Order instances by name, many at once or, when that failed before, one by one."""
        error, barren = None, 0
        for chunk in _chunks(missing, self.connection.way.together if together else 1):
            before = self.arrivals.new
            failure = self._order(Target(study.uid, series.uid, tuple(chunk), series.modality))
            error = failure or error
            barren = barren + 1 if failure is not None and self.arrivals.new == before else 0
            if barren >= STUCK:
                break
        return error

    def _order(self, target: Target) -> PacsError | None:
        """Fetch; what may be mended by asking otherwise or later is returned.

        Raises:
            PacsError: nothing can be fetched now.
        """
        try:
            self.connection.way.fetch(target)
        except PacsError as error:
            if error.code in FATAL or error.code in AWAY:
                raise
            return error
        return None


def _chunks(items: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _incomplete(remote: str) -> PacsError:
    return PacsError(
        f"remote {remote}",
        "it says that all was sent, and some instances did not come",
        "Look in the archive's log for what it could not send; then repeat the same command",
        code="pacs-incomplete",
    )
