"""A log as evidence: checked against words that the other side holds, and packed for somebody who trusts neither.

The archive holds the log's files as they are; the same lines as the bytes that were hashed; every signed word as bytes,
signature and key; and a README that checks all of it with `sha256sum` and `openssl` alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.audit import Head, read, verify
from common.audit_files import parts
from common.audit_lines import hashed
from common.errors import InputError, StorageError
from common.identity import PublicKey, fingerprint
from common.messages import Witness
from common.witness import SERVER, dump_witness, genuine, heads_of, signed_bytes

README: Final = Path(__file__).with_name("audit_evidence.txt")


@dataclass(frozen=True)
class Keys:
    """Whose signatures are believed."""

    server: PublicKey
    sites: Mapping[str, PublicKey]

    def of(self, word: Witness) -> PublicKey | None:
        """The key that must have signed a word; None where nobody of that name is known."""
        return self.server if word.by == SERVER else self.sites.get(word.site)


@dataclass(frozen=True)
class Evidence:
    """One log and what was sworn about it."""

    owner: str
    """`server`, or `site`: whose log it is."""
    name: str
    """Of the hospital or federation."""
    log: Path
    words: tuple[Witness, ...]
    keys: Keys | None
    """None: of a hospital that is not enrolled; then there can be no words."""
    beside: tuple[Path, ...] = ()
    """Logs whose ends this one tells, packed with it as they lie; they are checked by whoever knows those lines."""


@dataclass(frozen=True)
class Verdict:
    """A log that is whole."""

    log: str
    lines: int
    head: str
    words: int
    """Signed words against which it was held."""


def check(evidence: Evidence) -> Verdict:
    """Hold the whole log against every word.

    Raises:
        InputError: code `witness` for a word that nobody whom we know signed.
        StorageError: `audit-…` (`common.audit.verify`).
    """
    known: list[Head] = []
    for word in evidence.words:
        key = None if evidence.keys is None else evidence.keys.of(word)
        if key is None or not genuine(word, key):
            raise InputError(
                "a word of the other side",
                f"its signature is not that of the {word.by} we know",
                "Ask for it again, and compare the key's fingerprint by telephone",
                code="witness",
            )
        known += heads_of(word, evidence.owner)
    head = verify(evidence.log, *known)
    return Verdict(evidence.log.name, head.count, head.digest, len(evidence.words))


def export(evidence: Evidence, path: Path) -> Verdict:
    """Write the archive; only of a log that is whole.

    Raises:
        InputError, StorageError: as `check`; or the archive cannot be written.
    """
    verdict = check(evidence)
    entries = list(read(evidence.log))
    fingerprints = sorted({f"{word.by} {word.site} {fingerprint(word.key)}" for word in evidence.words})
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for part in parts(evidence.log):
                archive.write(part, f"log/{part.name}")
            for log in evidence.beside:
                for part in parts(log):
                    archive.write(part, f"beside/{log.parent.name}/{part.name}")
            archive.writestr("lines.txt", b"".join(hashed(entry) + b"\n" for entry in entries))
            archive.writestr(
                "hashes.txt", "".join(f"{entry['hash'].removeprefix('sha256:')}\n" for entry in entries)
            )
            archive.writestr("keys.txt", "".join(f"{line}\n" for line in fingerprints))
            archive.writestr("README.txt", _readme(evidence, verdict))
            _pack_words(archive, evidence.words)
    except OSError:
        raise StorageError(
            path.name, "the archive cannot be written", "Check free space and rights"
        ) from None
    return verdict


def _pack_words(archive: zipfile.ZipFile, words: Sequence[Witness]) -> None:
    for number, word in enumerate(words, start=1):
        name = f"words/{number:03d}-{word.by}-{word.site}"
        archive.writestr(f"{name}.json", dump_witness(word))
        archive.writestr(f"{name}.signed", signed_bytes(word))
        archive.writestr(f"{name}.sig", bytes.fromhex(word.signature))
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(word.key))
        archive.writestr(f"{name}.pem", key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def _readme(evidence: Evidence, verdict: Verdict) -> str:
    text = README.read_text(encoding="utf-8")
    values = {
        "owner": evidence.owner,
        "name": evidence.name,
        "lines": str(verdict.lines),
        "head": verdict.head,
    }
    for key, value in values.items():
        text = text.replace(f"<{key}>", value)
    return text
