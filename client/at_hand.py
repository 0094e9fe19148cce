"""A hospital's patients as one plan wants them, at hand from one round to the next.

They are read again as soon as an image, a label, a split or a withdrawal is another, so that each counts at once; not
because a run noted in the index whom it uses, which it does in its first round.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from client.dataset import SiteData, load_dataset
from client.index import Index
from client.site import Site
from common.plan import Plan


@dataclass(frozen=True)
class _Held:
    """What is at hand."""

    key: object
    """What of a plan decides it."""
    file: tuple[tuple[int, int], ...]
    """State of the index's files, taken before they were read or looked at."""
    data: SiteData


class AtHand:
    """The patients of one site; of one plan at a time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._held: _Held | None = None

    def data(self, plan: Plan) -> SiteData:
        """The plan's patients.

        Raises:
            DataError, StorageError: as `client.dataset.load_dataset`.
        """
        key, file, held = (plan.input, plan.task, plan.data), self._state_of_files(), self._held
        if held is None or held.key != key or (held.file != file and not self._same_images(held.data)):
            held = _Held(key, file, load_dataset(self._site, plan))
        self._held = replace(held, file=file)
        return self._held.data

    def _same_images(self, data: SiteData) -> bool:
        with Index(self._site.index) as index:
            return index.state_of_images() == data.state

    def _state_of_files(self) -> tuple[tuple[int, int], ...]:
        """Size and time of the index and its write-ahead log."""
        path = self._site.index
        files = (path, path.with_name(path.name + "-wal"))
        stats = (file.stat() for file in files if file.exists())
        return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats if stat.st_size)
