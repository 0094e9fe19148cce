"""The consortium's folder: settings, keys, authority and book, and the one object that has them all.

server.toml            settings; no secret in it
consortium.key         the server's own key; hospitals pin it at enrolment
consortium.sqlite      hospitals, invitations, certificates, rosters, releases (`server.site_book`)
heads.json             ledger heads seen (`server.heads`)
seen/                  what was last heard of each hospital (`server.sightings`)
audit.jsonl            what happened, hash-chained
pki/ca.key, ca.crt     the federation's authority, its key encrypted
pki/crl.pem            certificates that were revoked
pki/edge.key, .crt     the edge's certificate, for the addresses in the kits
pki/superlink.key, .crt  of the SuperLink, for this machine alone
secrets/               passphrase of the authority; secrets shared by the server's own processes
run/                   what the server's processes write: settings of the edge, process ids, logs
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import tomli_w
from pydantic import TypeAdapter, ValidationError

from common.certificates import load_key, make_key, read_certificate, request, write_new
from common.checkpoints import write_whole
from common.errors import FederationError, SettingsError, StorageError
from common.identity import Identity
from common.kit import Kit
from common.pki import AUTHORITY_DAYS, RENEW_DAYS, Authority, same_list
from common.settings import load_settings
from common.types import SiteName
from server.heads import KEY
from server.settings import ServerSettings
from server.site_book import SiteBook

SETTINGS: Final = "server.toml"
AUDIT: Final = "audit.jsonl"
EXECUTOR_SECRET: Final = "executor.secret"  # noqa: S105 - a file's name
EDGE_SECRET: Final = "edge.secret"  # noqa: S105 - a file's name


@dataclass(frozen=True)
class Consortium:
    """A federation's server, ready for use. Neither keys nor passphrase show in a repr."""

    folder: Path
    settings: ServerSettings
    identity: Identity
    book: SiteBook

    @classmethod
    def init(
        cls, folder: Path, name: str, addresses: Sequence[str], passphrase_file: Path | None = None
    ) -> Consortium:
        """Make a new federation.

        Args:
            folder: where server.toml goes.
            name: of the federation; it stands in every certificate.
            addresses: `host:port`, as hospitals will reach the edge.
            passphrase_file: holds the passphrase of the authority's key; made at random in `secrets/` when not given.

        Raises:
            SettingsError: there is a federation already, or a name, address or passphrase is not allowed.
            StorageError: the folder cannot be written.
        """
        if (folder / SETTINGS).exists():
            raise SettingsError(
                SETTINGS, "this folder holds a federation already", "Use it, or another folder"
            )
        values: dict[str, dict[str, object]] = {"federation": {"name": name, "addresses": list(addresses)}}
        if passphrase_file is not None:
            values["ca"] = {"passphrase_file": str(passphrase_file.resolve())}
        settings = _checked(values)
        _make_secrets(folder, own_passphrase=passphrase_file is None)
        phrase = _passphrase(folder / settings.ca.passphrase_file)
        authority = Authority.make(name, phrase)
        authority.save(folder / "pki", phrase)
        Identity.make(folder / KEY)
        for part in ("edge", "superlink"):
            make_key(folder / "pki" / f"{part}.key")
        write_whole(folder / "pki" / "crl.pem", authority.revocations([]).encode())
        write_whole(
            folder / SETTINGS, tomli_w.dumps(values).encode()
        )  # last: without it there is no federation
        made = cls.open(folder)
        made.freshen()
        return made

    @classmethod
    def open(cls, folder: Path) -> Consortium:
        """The federation in this folder.

        Raises:
            SettingsError: server.toml or a key is missing or wrong.
            StorageError: the database cannot be opened.
        """
        settings = load_settings(folder / SETTINGS, ServerSettings)
        identity = Identity.load(folder / KEY)
        return cls(folder.resolve(), settings, identity, SiteBook(folder / "consortium.sqlite"))

    @property
    def name(self) -> str:
        """Of the federation."""
        return self.settings.federation.name

    @property
    def pki(self) -> Path:
        """Folder of certificates and their keys."""
        return self.folder / "pki"

    @property
    def run(self) -> Path:
        """Folder of what the server's processes write."""
        return self.folder / "run"

    @property
    def authority_pem(self) -> str:
        """The authority's certificate."""
        return _text(self.pki / "ca.crt")

    @property
    def executor_secret(self) -> Path:
        """File with the secret that an executor shows to the SuperLink."""
        return self.folder / "secrets" / EXECUTOR_SECRET

    @property
    def edge_secret(self) -> str:
        """What the edge shows to the api, so that no other process of this machine passes for it."""
        return _text(self.folder / "secrets" / EDGE_SECRET).strip()

    def authority(self) -> Authority:
        """The authority, its key opened.

        Raises:
            SettingsError: `key-missing`, `key-rights`, or `passphrase`.
        """
        return Authority.load(self.pki, _passphrase(self.folder / self.settings.ca.passphrase_file))

    def kit(self, site: SiteName) -> Kit:
        """What this hospital is told of the federation."""
        addresses = self.settings.federation.addresses
        return Kit(self.name, site, tuple(addresses), self.authority_pem, self.identity.public)

    def freshen(self, now: datetime | None = None) -> bool:
        """Give the edge and the SuperLink their certificates, where they have none or it ends soon or names others.

        Returns:
            Whether the edge has to read its settings again.
        """
        at = now or datetime.now(UTC)
        hosts = sorted({_host(address) for address in self.settings.federation.addresses})
        inside = sorted({"127.0.0.1", "localhost", self.settings.superlink.host})
        self._certify("superlink", inside, at, AUTHORITY_DAYS - 1)
        return self._certify("edge", hosts, at, None)

    def check_clock(self, now: datetime | None = None) -> None:
        """Refuse a clock that was reset, e.g. by an empty battery: nobody could connect, and every certificate made would be wrong.

        Raises:
            FederationError: `clock` when the authority has not begun.
        """
        begins = read_certificate(self.authority_pem).begins
        if (now or datetime.now(UTC)) < begins:
            raise FederationError(
                "this machine's clock",
                f"it shows a time before this federation was made, {begins:%Y-%m-%d}",
                "Set it by NTP, then start",
                code="clock",
            )

    def write_revocations(self) -> bool:
        """Put the revocation list on disk as the book has it; the edge reads it when it is told to.

        Returns:
            Whether it is another than the one that was there.
        """
        path = self.pki / "crl.pem"
        made = self.authority().revocations(self.book.revoked())
        if path.exists() and same_list(_text(path), made):
            return False
        write_whole(path, made.encode())
        return True

    def _certify(self, part: str, names: list[str], now: datetime, days: int | None) -> bool:
        path, note = self.pki / f"{part}.crt", self.pki / f"{part}.names"
        told = "\n".join(names)
        stands = path.exists() and note.exists() and _text(note) == told
        if stands and read_certificate(_text(path)).left(now).days >= RENEW_DAYS:
            return False
        asked = request(load_key(self.pki / f"{part}.key"), part)
        given = self.authority().issue_server(asked, self.name, names, now=now, days=days)
        write_whole(path, given.pem.encode())
        write_whole(note, told.encode())
        return True


def _checked(values: dict[str, dict[str, object]]) -> ServerSettings:
    try:
        return TypeAdapter(ServerSettings).validate_python(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False)
        )
        raise SettingsError(
            SETTINGS, wrong, "Give a name of a-z, 0-9 and hyphens, and addresses as host:port"
        ) from None


def _make_secrets(folder: Path, *, own_passphrase: bool) -> None:
    names = [EXECUTOR_SECRET, EDGE_SECRET, *(["ca.passphrase"] if own_passphrase else [])]
    for name in names:
        write_new(folder / "secrets" / name, secrets.token_hex(32).encode())


def _passphrase(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(
                path.name, "others than its owner may read it", f"chmod 600 {path.name}", code="key-rights"
            )
        return path.read_bytes().strip()
    except OSError:
        raise SettingsError(
            "ca.passphrase_file",
            "the file it names is not there",
            "Restore it from where you keep it apart",
            code="key-missing",
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise StorageError(path.name, "it cannot be read", "Restore it from backup") from None


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
