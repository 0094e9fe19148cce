"""Refused originals, sealed, each beside its reason, named by a keyed code and not by what they were called.

Laws, in order:
1. No byte of an original lies here unsealed; what an older release left so is sealed by the next ingestion.
2. The reason beside it holds no patient's name or number: codes, places in the picture, a pseudonym.
3. An image that comes in two files, one from a folder and one from an archive, and is refused twice for one
   reason, lies here once.
4. An original goes when its image was taken in, a person discarded it, its patient withdrew, or the days that
   the policy sets are over; never otherwise.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from client.deid.text.found import Decision
from client.files import storage_error, whole_file
from client.intake.outcome import Outcome, Person
from client.intake.refusals import Refusal, lost, read_reason
from client.intake.seal import CHUNK_BYTES, Seal, open_seal
from client.site import Site
from common.errors import StorageError

if TYPE_CHECKING:
    from client.intake.folder import Incoming

__all__ = ["ID_LENGTH", "Quarantine", "Refusal"]

ID_LENGTH: Final = 16
_SEALED: Final = ".sealed"
_PLAIN: Final = ".bin"
"""How an older release kept originals."""
_REASON: Final = ".json"
_LENGTH_BYTES: Final = 4


class Quarantine:
    """The folder of refused originals; readable by its owner only.

    Args:
        folder: where.
        site_key: the pseudonym key, under which originals are sealed.

    Raises:
        StorageError: any method, when the disk is full or refuses, or the originals were sealed under another key.
    """

    def __init__(self, folder: Path, site_key: bytes) -> None:
        self._folder = folder
        self._site_key = site_key

    @classmethod
    def of(cls, site: Site) -> Self:
        """The quarantine of this site."""
        return cls(site.quarantine, site.pseudonym_key)

    @cached_property
    def _seal(self) -> Seal:
        return open_seal(self._folder, self._site_key)

    def put(
        self, file: Incoming, key: str, outcome: Outcome, way: str = "", decision: Decision | None = None
    ) -> str:
        """Keep a refused file, sealed, and its reason; the same file again keeps its first day.

        Of another file with the same image, refused for the same reason, only the way it came is kept.

        Args:
            file: the original; what it was called is sealed with it.
            key: keyed digest of its content.
            outcome: why it was refused.
            way: by which it came, `folder` or `archive`; empty when it comes from here.
            decision: what a person decided before this refusal.

        Returns:
            the quarantine identifier under which the image lies.
        """
        name = key[:ID_LENGTH]
        before = self.find(name)
        if before is None and (twin := self._twin(outcome)) is not None:
            self._say(replace(twin, ways=_with(twin.ways, way)))
            return twin.id
        ways = _with(() if before is None else before.ways, way)
        known = (decision or Decision()) if before is None else (decision or before.decision)
        since = before.since if before is not None and before.since else _now()
        said = (outcome.code, outcome.rule, outcome.remedy, outcome.modality)
        whose = (outcome.patient, outcome.spend_key, key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            there = file.refusal is None and file.path.is_file()
            size = file.path.stat().st_size if there else 0
            # The reason first: it says whose the original is, and a withdrawal must find that.
            self._say(Refusal(name, *said, *whose, since, size, outcome.boxes, known, outcome.image, ways))
            self._images[outcome.image, outcome.code] = name
            if there and not self._sealed(name).exists():
                self._put_original(file, name)
        except OSError as error:
            raise storage_error(error, f"quarantine {name}") from None
        return name

    @cached_property
    def _images(self) -> dict[tuple[str, str], str]:
        """Where an image lies that was refused with a code; what left since is still named."""
        return {(one.image, one.code): one.id for one in self.refusals()}

    def _twin(self, outcome: Outcome) -> Refusal | None:
        """The refusal of the same image for the same reason, where its original is here."""
        name = self._images.get((outcome.image, outcome.code)) if outcome.image else None
        held = None if name is None else self.find(name)
        if held is None or (held.image, held.code) != (outcome.image, outcome.code):
            return None
        return held if self.has_original(held.id) else None

    def put_reason(self, key: str, outcome: Outcome) -> str:
        """Say why a file was refused and keep no copy of it, nor one from before, nor whose it was.

        Returns:
            the quarantine identifier.
        """
        name = key[:ID_LENGTH]
        self._remove(name, _SEALED, _PLAIN)
        said = (outcome.code, outcome.rule, outcome.remedy, outcome.modality)
        self._say(Refusal(name, *said, key=key, since=_now()))
        return name

    def drop(self, key: str) -> None:
        """Forget a file that was refused before and is accepted or discarded now, by its key or identifier."""
        self._remove(key[:ID_LENGTH], _SEALED, _PLAIN, _REASON)

    def drop_all(self, keys: Iterable[str]) -> None:
        """As `drop`, for many files, of which few or none were ever here."""
        held = {path.name.partition(".")[0] for path in self._folder.glob("*")}
        for key in keys:
            if key[:ID_LENGTH] in held:
                self.drop(key)

    def withdraw(self, pseudonym: str, spend_key: str = "") -> tuple[str, ...]:
        """Remove every original of a patient with its reason; returns their identifiers.

        Files that could not be read far enough to name a patient stay.
        """
        gone = [one.id for one in self.refusals() if _is_of(one, pseudonym, spend_key)]
        for name in gone:
            self.drop(name)
        return tuple(gone)

    def expire(self, days: int, now: datetime | None = None) -> list[Refusal]:
        """Remove what has been here longer than so many days; returns the reasons of what went."""
        at = now or datetime.now(UTC)
        over = [one for one in self.refusals() if one.since and one.ends(days) <= at]
        for one in over:
            self.drop(one.id)
        return over

    def seal_all(self) -> int:
        """Seal what an older release left in plain, and date it; returns how many originals that were."""
        from client.intake.folder import Incoming  # noqa: PLC0415 - pydicom, which who only counts what was refused needs not

        plain = sorted(self._folder.glob(f"*{_PLAIN}"))
        for path in plain:
            try:
                if not self._sealed(path.stem).exists():
                    self._put_original(Incoming(path, "", None), path.stem)
                path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, f"quarantine {path.stem}") from None
        for one in self.refusals():
            if not one.since:
                self._say(replace(one, since=_now(), bytes=one.bytes or self._size(one.id)))
        return len(plain)

    @contextmanager
    def original(self, name: str, private: Path) -> Iterator[Incoming]:
        """An original, opened for another process of this user; it has no name on the disk and dies with this one.

        Args:
            name: the quarantine identifier.
            private: a folder on the disk that has room for it.

        Raises:
            StorageError: `quarantine-missing` or `quarantine-damaged`.
        """
        try:
            private.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._sealed(name).open("rb") as sealed, tempfile.TemporaryFile(dir=private) as bare:
                pieces = self._seal.read(sealed, name)
                slip, rest = _slip(next(pieces))
                bare.write(rest)
                for piece in pieces:
                    bare.write(piece)
                bare.flush()
                yield _incoming(bare, slip)
        except FileNotFoundError:
            raise StorageError(
                f"quarantine {name}",
                "its original is not there",
                "Send the file again from its source",
                code="quarantine-missing",
            ) from None
        except OSError as error:
            raise storage_error(error, f"quarantine {name}") from None

    def has_original(self, name: str) -> bool:
        """Whether the sealed original lies beside the reason."""
        return self._sealed(name).exists()

    def refusals(self) -> list[Refusal]:
        """Every refusal, by code and identifier; one whose reason was lost has the code `reason-lost`."""
        found = {path.stem: read_reason(path) for path in self._folder.glob(f"*{_REASON}")}
        for path in self._folder.glob(f"*{_SEALED}"):
            found.setdefault(path.stem, lost(path))
        return sorted(found.values(), key=lambda refusal: (refusal.code, refusal.id))

    def find(self, name: str) -> Refusal | None:
        """One refusal by its identifier, or None."""
        path = self._folder / f"{name}{_REASON}"
        return read_reason(path) if path.exists() else None

    def _sealed(self, name: str) -> Path:
        return self._folder / f"{name}{_SEALED}"

    def _size(self, name: str) -> int:
        path = self._sealed(name)
        return path.stat().st_size if path.exists() else 0

    def _put_original(self, file: Incoming, name: str) -> None:
        seal = self._seal
        with file.path.open("rb") as source, whole_file(self._sealed(name)) as target:
            os.fchmod(target.fileno(), 0o600)
            seal.write(_pieces(file, source), target, name)

    def _say(self, reason: Refusal) -> None:
        with whole_file(self._folder / f"{reason.id}{_REASON}") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps(asdict(reason), indent=1).encode("utf-8"))

    def _remove(self, name: str, *suffixes: str) -> None:
        """Remove files in this order; the reason stands last, so that a removal cut short is found again."""
        try:
            for suffix in suffixes:
                (self._folder / f"{name}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, f"quarantine {name}") from None


def _pieces(file: Incoming, source: IO[bytes]) -> Iterator[bytes]:
    """What is sealed: a slip that says what the file was called and whom it shows, after its length; then the file."""
    slip = {"relative": file.relative, "person": None if file.person is None else asdict(file.person)}
    text = json.dumps(slip).encode("utf-8")
    yield len(text).to_bytes(_LENGTH_BYTES, "big") + text
    while piece := source.read(CHUNK_BYTES):
        yield piece


def _slip(first: bytes) -> tuple[dict[str, Any], bytes]:
    """The slip, and the beginning of the file that stands behind it in the same chunk."""
    end = _LENGTH_BYTES + int.from_bytes(first[:_LENGTH_BYTES], "big")
    return json.loads(first[_LENGTH_BYTES:end]), first[end:]


def _incoming(bare: IO[bytes], slip: Mapping[str, Any]) -> Incoming:
    from client.intake.folder import Incoming  # noqa: PLC0415 - as above

    person = None if slip["person"] is None else Person(**slip["person"])
    return Incoming(Path(f"/proc/{os.getpid()}/fd/{bare.fileno()}"), str(slip["relative"]), person)


def _with(ways: tuple[str, ...], way: str) -> tuple[str, ...]:
    return ways if not way or way in ways else (*ways, way)


def _is_of(refusal: Refusal, pseudonym: str, spend_key: str) -> bool:
    same_spender = bool(spend_key) and refusal.spend_key == spend_key
    return refusal.patient == pseudonym or same_spender


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
