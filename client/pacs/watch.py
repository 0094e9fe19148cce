"""Orthanc's list of changes, followed: a study that has become stable is fetched and taken in.

Laws, in order:
1. A change counts as dealt with, durably, when everything it names is in the inbox; after a crash it comes again.
2. A study becomes stable again whenever late instances came: what is noted is not fetched twice.
3. The list is known by its last change that was dealt with. Where that place now holds another change, or
   the list is shorter, the archive's database was made anew, and the list is read from its beginning.
4. One study that cannot be fetched does not stop the others; it is asked for again at the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from client.pacs.arrivals import Arrivals
from client.pacs.failures import bad_answer
from client.pacs.fetch import CLASSES, only_images
from client.pacs.journal import Position
from client.pacs.query import SeriesFound, StudyFound, Wanted
from client.pacs.web import Web
from common.errors import PacsError
from common.logs import Log

PAGE: Final = 500
ATTEMPTS: Final = 5
"""How often a study is asked for before the list is read on without it; `pacs pull` can still fetch it."""
_STABLE: Final = "StableStudy"
_ANY: Final = "*/*"
_PIECE: Final = 2**18
_GONE: Final = "pacs-missing"
_ONE_STUDY: Final = frozenset((_GONE, "pacs-answer", "pacs-size", "pacs-lost", "pacs-server"))
"""Codes that may be about one study; any other is about the archive."""
_LOG: Final = Log("client.pacs")


@dataclass
class Seen:
    """What a watch has done since its start."""

    changes: int = 0
    studies: int = 0
    """Stable studies that are wanted."""
    instances: int = 0
    """New in the inbox."""
    passed_over: int = 0
    """Instances of a kind that this site cannot use."""
    restarts: int = 0
    """How often the list was found to be another one."""
    failed: int = 0
    """Fetches that failed; each is tried again at the next look."""


@dataclass
class Watch:
    """One archive being watched; `look` as often as you like.

    Args:
        remote: its name.
        web: a client of Orthanc's REST interface.
        arrivals: where instances go.
        wanted: which studies and series; the others are passed over.
        room: called before each study; may make room in the inbox, and raises when there is none.
    """

    remote: str
    web: Web
    arrivals: Arrivals
    wanted: Wanted = field(default_factory=Wanted)
    room: Callable[[], None] = lambda: None
    seen: Seen = field(default_factory=Seen)
    _held: bool = False
    """Whether a study of this look failed: the place in the list stays before it."""

    def look(self) -> int:
        """Deal with every change since the last time; returns the number of studies that were fetched.

        Raises:
            PacsError: the archive does not answer.
            StorageError: the inbox takes no more.
        """
        before, self._held = self.seen.studies, False
        position = self._checked(self.arrivals.journal.position(self.remote))
        while True:
            page = self._changes(f"since={position.sequence}&limit={PAGE}")
            for change in page.changes:
                self.seen.changes += 1
                if change.kind == _STABLE:
                    self._study(change.resource)
                    self._dealt_with(change)
            if page.changes:
                position = self._dealt_with(page.changes[-1])
            if page.done or not page.changes:
                return self.seen.studies - before

    @property
    def failing(self) -> bool:
        """Whether a study waits for another look."""
        return self._held

    def _dealt_with(self, change: _Change) -> Position:
        if not self._held:
            self.arrivals.journal.move(self.remote, change.sequence, change.text)
        return Position(change.sequence)

    def _checked(self, position: Position) -> Position:
        """The position, or the beginning when the list is not the one that was read before."""
        if not position.sequence:
            return position
        page = self._changes(f"since={position.sequence - 1}&limit=1")
        here = [change for change in page.changes if change.sequence == position.sequence]
        # Changes of what was deleted are deleted too: a gap is no other list, a shorter list is.
        if here and self.arrivals.journal.mark(here[0].text) == position.mark:
            return position
        if not here and self._last() >= position.sequence:
            return position
        self.seen.restarts += 1
        _LOG.warning("pacs.changes_anew")
        return Position()

    def _last(self) -> int:
        changes = self._changes("last").changes
        return changes[-1].sequence if changes else 0

    def _changes(self, query: str) -> _Page:
        return _page(self.web.name, self.web.json(f"changes?{query}"))

    def _study(self, identifier: str) -> None:
        """Fetch what is missing of one study; a failure that is its own is kept for the next looks."""
        journal = self.arrivals.journal
        self.room()
        try:
            series = self._wanted_series(identifier)
            for one in series:
                self._series(one)
        except PacsError as error:
            if error.code not in _ONE_STUDY:
                raise
            if error.code == _GONE:  # deleted meanwhile: nothing is left to fetch
                return
            self.seen.failed += 1
            _LOG.warning("pacs.study_failed", code=error.code, digest=journal.code(identifier))
            self._held |= journal.begin(self.remote, identifier) < ATTEMPTS
            journal.end(self.remote, identifier, error.code)
        else:
            journal.end(self.remote, identifier)
            self.seen.studies += bool(series)

    def _wanted_series(self, identifier: str) -> list[_Series]:
        """The wanted series of a study; none when the study is not wanted."""
        name = _plain(self.web.name, identifier)
        tags = _tags(self.web.json(f"studies/{name}"))
        uid, accession = tags.get("StudyInstanceUID", ""), tags.get("AccessionNumber", "").strip()
        if not uid:
            raise bad_answer(self.web.name, "its REST answer names no study")
        if not self.wanted.study(StudyFound(uid, tags.get("StudyDate", ""), accession)):
            return []
        described = [_series(self.web.name, uid, one) for one in _listed(self.web, f"studies/{name}/series")]
        return [one for one in described if self.wanted.series(one.found)]

    def _series(self, series: _Series) -> None:
        if self.arrivals.journal.count(series.found.uid) >= series.found.instances:
            return
        for one in _listed(self.web, f"series/{_plain(self.web.name, series.name)}/instances"):
            uid, name = _tags(one).get("SOPInstanceUID", ""), _plain(self.web.name, str(one.get("ID", "")))
            if not uid:
                raise bad_answer(self.web.name, "its REST answer names no instance")
            if self.arrivals.journal.has(uid):
                continue
            if not only_images(series.found.modality) and self._sop_class(name) not in CLASSES:
                self.seen.passed_over += 1
                continue
            with self.web.stream(f"instances/{name}/file", _ANY) as answer:
                self.arrivals.put(series.study, series.found.uid, uid, answer.iter_bytes(_PIECE))
            self.seen.instances += 1

    def _sop_class(self, name: str) -> str:
        with self.web.stream(f"instances/{name}/metadata/SopClassUid", _ANY) as answer:
            return answer.read()[:64].decode("ascii", "replace").strip(" \0\n")


@dataclass(frozen=True)
class _Series:
    name: str = field(repr=False)
    """Orthanc's identifier."""
    study: str = field(repr=False)
    found: SeriesFound


def _series(remote: str, study: str, answer: Mapping[str, Any]) -> _Series:
    tags, instances = _tags(answer), answer.get("Instances")
    if not isinstance(instances, list):
        raise bad_answer(remote, "its REST answer is not a list of series")
    found = SeriesFound(
        tags.get("SeriesInstanceUID", ""),
        tags.get("Modality", ""),
        tags.get("BodyPartExamined", "").upper(),
        len(instances),
    )
    return _Series(str(answer.get("ID", "")), study, found)


def _listed(web: Web, path: str) -> list[Mapping[str, Any]]:
    answer = web.json(path)
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise bad_answer(web.name, "its REST answer is not a list")
    return answer


@dataclass(frozen=True)
class _Change:
    sequence: int
    kind: str
    resource: str = field(repr=False)

    @property
    def text(self) -> str:
        """What tells it from a change of another list at the same place."""
        return f"{self.sequence} {self.kind} {self.resource}"


@dataclass(frozen=True)
class _Page:
    changes: tuple[_Change, ...]
    done: bool


def _page(remote: str, answer: Any) -> _Page:
    try:
        changes = tuple(
            _Change(int(one["Seq"]), str(one["ChangeType"]), str(one["ID"])) for one in answer["Changes"]
        )
        return _Page(changes, bool(answer["Done"]))
    except (KeyError, TypeError, ValueError):
        raise bad_answer(remote, "its list of changes is not Orthanc's") from None


def _tags(answer: Any) -> Mapping[str, str]:
    tags = answer.get("MainDicomTags") if isinstance(answer, dict) else None
    return {str(k): str(v) for k, v in tags.items()} if isinstance(tags, dict) else {}


def _plain(remote: str, identifier: str) -> str:
    """Orthanc's identifiers are hexadecimal with hyphens; anything else leads elsewhere."""
    if not identifier or set(identifier) - set("0123456789abcdef-"):
        raise bad_answer(remote, "an identifier in its answer is not Orthanc's")
    return identifier
