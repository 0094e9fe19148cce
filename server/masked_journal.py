"""What a masked round came to so far, in the run's folder: it goes on there after a crash, never begins again.

`secure/terms.json`          what the round is about
`secure/<kind>-<site>.reply` every answer that was admitted, on disk before it counts
`secure/<kind>.closed`       whose answers of a stage count; written when the stage is over

A site gives the same bytes to the same question, and refuses another. So a stage that was closed is never asked
again, and what follows from it is said in the same words after a restart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from common.checkpoints import write_whole
from common.errors import StorageError
from common.messages import Kind, Terms
from common.tensors import Blob
from common.types import SiteName


class MaskedJournal:
    """The folder of one masked round.

    Args:
        folder: of the round under way; another round's is emptied.
        name: of the round and the model: what is in the folder counts for this one only.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / "secure"
        if self._text("name") != name:
            shutil.rmtree(self._folder, ignore_errors=True)
            write_whole(self._folder / "name", name.encode())

    def terms(self, made: Terms) -> Terms:
        """The terms that were told first; `made` where none were."""
        text = self._text("terms.json")
        if text is None:
            write_whole(self._folder / "terms.json", json.dumps(asdict(made)).encode())
            return made
        try:
            return TypeAdapter(Terms).validate_json(text)
        except ValidationError:
            raise StorageError(
                "terms.json", "it is damaged", "Start the run anew in another folder"
            ) from None

    def admitted(self, kind: Kind) -> Iterator[tuple[SiteName, bytes]]:
        """Every answer of a stage that counts."""
        closed = self.closed(kind)
        for path in sorted(self._folder.glob(f"{kind.value}-*.reply")):
            site = SiteName(path.stem.removeprefix(f"{kind.value}-"))
            if closed is None or site in closed:
                yield site, path.read_bytes()

    def admit(self, kind: Kind, site: SiteName, reply: Blob) -> None:
        """One more answer; on disk when this returns."""
        write_whole(self._folder / f"{kind.value}-{site}.reply", memoryview(reply))

    def closed(self, kind: Kind) -> frozenset[SiteName] | None:
        """Whose answers count; None while the stage is open."""
        text = self._text(f"{kind.value}.closed")
        return None if text is None else frozenset(SiteName(site) for site in json.loads(text))

    def close(self, kind: Kind, sites: Iterable[str]) -> None:
        """The stage is over; on disk when this returns."""
        write_whole(self._folder / f"{kind.value}.closed", json.dumps(sorted(sites)).encode())

    def _text(self, name: str) -> str | None:
        path = self._folder / name
        return path.read_text(encoding="utf-8") if path.exists() else None
