"""What the server has seen of each hospital's privacy ledger, and its word for it.

`consortium.key`  the server's own key, made on first use
`heads.json`      per site the newest ledger head it was shown

1. A head is on disk before it is countersigned.
2. A head moves on only with an update, which a site gives only if its ledger contains the one countersigned
   before. A site that shows any other head is told the one that was seen, and judges itself.
3. A head never goes back.
4. A folder with heads and no key, or with heads that cannot be read, is refused; it is never begun afresh.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from common.checkpoints import write_whole
from common.errors import StorageError
from common.heads import countersign
from common.identity import Identity, fingerprint
from common.locks import awaited
from common.messages import Countersignature, LedgerHead
from common.types import Digest, RunId, SiteName

SCHEMA: Final = "consilium/heads/1"
KEY: Final = "consortium.key"
HEADS: Final = "heads.json"
NEWEST: Final = "newest"
AHEAD: Final = "ahead"
BEHIND: Final = "behind"
FORK: Final = "fork"


class HeadBook:
    """The heads of one federation; several runs may use the same folder at once.

    Args:
        folder: of the consortium's key and heads; made with the first use.

    Raises:
        SettingsError: the key is missing beside heads, or can be read by others.
        StorageError: the heads cannot be read, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            raise StorageError(folder.name, "it cannot be made", "Check free space and rights") from None
        with self._locked():
            self._seen = _read(folder / HEADS)
            self._identity = self._key()
        self._dirty = False

    @property
    def fingerprint(self) -> Digest:
        """Of the server's key, which hospitals pin and compare."""
        return fingerprint(self._identity.public)

    def shown(self, site: SiteName, head: LedgerHead | None) -> dict[str, object]:
        """A head that came without proof, in a survey: taken in on first contact only.

        Whether a head that is further on goes on from the one that was seen, the site alone can tell, and it
        does so before it trains: a copy that was used elsewhere is further on too.

        Returns:
            The fields of the audit log's line; `state` is `newest`, `ahead`, `behind`, or `fork` for another head
            with the same counter.
        """
        if head is None:
            return {}
        seen = self._seen.get(site)
        state = NEWEST
        if seen is None:
            self._take(site, head)
        elif head != seen:
            same, further = head.sequence == seen.sequence, head.sequence > seen.sequence
            state = FORK if same else AHEAD if further else BEHIND
        return {"count": head.sequence, "digest": head.digest, "state": state}

    def proven(self, site: SiteName, head: LedgerHead | None) -> dict[str, object]:
        """A head that came with an update, so from a ledger that contains the one countersigned before.

        Returns:
            The fields of the audit log's line, as `shown`.
        """
        line = self.shown(site, head)
        if head is not None and line["state"] == AHEAD:
            self._take(site, head)
            line["state"] = NEWEST
        return line

    def countersigned(
        self, nodes: Mapping[SiteName, int], run: RunId, round_: int
    ) -> dict[int, Countersignature]:
        """The server's word for each of these sites that has shown a head, by the node it answers at."""
        words = {node: self.countersign(site, run, round_) for site, node in nodes.items()}
        return {node: word for node, word in words.items() if word is not None}

    def countersign(self, site: SiteName, run: RunId, round_: int) -> Countersignature | None:
        """The server's word for the newest head of a site; None before it has shown one."""
        self.keep()
        seen = self._seen.get(site)
        return None if seen is None else countersign(self._identity, site, seen, run, round_)

    def keep(self) -> None:
        """Put on disk what was noted, joined with what another run noted meanwhile.

        Raises:
            StorageError: when it cannot be written; then nothing is countersigned.
        """
        if not self._dirty:
            return
        with self._locked():
            for site, head in _read(self._folder / HEADS).items():
                if site not in self._seen or head.sequence > self._seen[site].sequence:
                    self._seen[site] = head
            sites = {
                site: {"sequence": head.sequence, "digest": head.digest}
                for site, head in sorted(self._seen.items())
            }
            write_whole(self._folder / HEADS, json.dumps({"schema": SCHEMA, "sites": sites}).encode())
        self._dirty = False

    def _take(self, site: SiteName, head: LedgerHead) -> None:
        self._seen[site] = head
        self._dirty = True

    def _key(self) -> Identity:
        path = self._folder / KEY
        if path.exists() or self._seen:
            return Identity.load(path)
        return Identity.make(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            turn = awaited(self._folder / "heads.lock")
        except OSError:
            raise StorageError(HEADS, "its folder cannot be written", "Check free space and rights") from None
        with turn:
            yield


def _read(path: Path) -> dict[SiteName, LedgerHead]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sites: dict[str, Any] = values["sites"] if values["schema"] == SCHEMA else {SCHEMA: None}
        return {
            SiteName(str(site)): LedgerHead(int(head["sequence"]), Digest(str(head["digest"])))
            for site, head in sites.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise StorageError(
            path.name,
            "it does not hold the heads that were seen",
            "Restore it from backup; an older one will do, a fresh one will not",
            code="heads-unreadable",
        ) from None
