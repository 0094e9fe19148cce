"""The remotes of `[pacs]`: found by name, with their password and certificates. Secrets never show in a repr."""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from client.pacs.settings import Remote, Tls
from client.site import Site
from common.errors import SettingsError

_LONGEST_PASSWORD: Final = 4096


@dataclass(frozen=True)
class Caller:
    """Who we are towards one remote and where it is."""

    ae_title: str
    """Ours."""
    remote: Remote
    folder: Path
    """Of site.toml; files that settings name are relative to it."""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The remote's name, as errors and logs say it."""
        return self.remote.name

    @property
    def dimse(self) -> bool:
        """Whether the remote has an AE title, host and port."""
        return bool(self.remote.ae_title and self.remote.host and self.remote.port)


def find_remote(site: Site, name: str | None) -> Caller:
    """The remote of this name; without a name the only one.

    Raises:
        SettingsError: there is none of that name, there are several, or its password file is not usable.
    """
    require_remote(site, name)
    remotes = site.pacs.remotes
    if name is None and len(remotes) > 1:
        raise SettingsError(
            "--remote", "several archives are named in site.toml", f"Choose one: {_names(site)}"
        )
    return caller(site, next(remote for remote in remotes if name in (None, remote.name)))


def require_remote(site: Site, name: str | None) -> None:
    """Let pass when there is an archive of this name, or any at all.

    Raises:
        SettingsError: there is none.
    """
    remotes = site.pacs.remotes
    if not remotes:
        raise SettingsError(
            "pacs.remotes", "no archive is named there", "Add a [[pacs.remotes]] section to site.toml"
        )
    if name is not None and name not in {remote.name for remote in remotes}:
        raise SettingsError(
            "--remote", "no archive of that name stands in site.toml", f"Choose one: {_names(site)}"
        )


def caller(site: Site, remote: Remote) -> Caller:
    """Who we are towards that remote.

    Raises:
        SettingsError: its password file is not usable.
    """
    password = _password(site.folder / remote.password_file, remote.name) if remote.password_file else ""
    return Caller(site.pacs.ae_title, remote, site.folder, remote.user, password)


def client_tls(caller: Caller, tls: Tls | None = None) -> ssl.SSLContext:
    """How we speak TLS to the remote: its authorities, and our certificate where one is named.

    Args:
        caller: the remote.
        tls: for DICOM, the three files; for https None: `authorities` of the remote, or the system's.

    Raises:
        SettingsError: a file is missing or is not what it should be.
    """
    authorities = caller.remote.authorities if tls is None else tls.authorities
    subject = f"remote {caller.name}"
    try:
        context = ssl.create_default_context(cafile=str(caller.folder / authorities) if authorities else None)
        if tls is not None and tls.certificate:
            context.load_cert_chain(
                caller.folder / tls.certificate, caller.folder / tls.key if tls.key else None
            )
    except (OSError, ssl.SSLError):
        raise SettingsError(
            subject,
            "a certificate, key or authorities file that it names cannot be used",
            "Check that the files are there, in PEM, and that the key belongs to the certificate",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def uses_tls(tls: Tls) -> bool:
    """Whether any of the three files is named."""
    return bool(tls.certificate or tls.key or tls.authorities)


def _names(site: Site) -> str:
    return ", ".join(remote.name for remote in site.pacs.remotes)


def _password(path: Path, remote: str) -> str:
    subject = f"remote {remote}"
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(
                    subject,
                    "its password_file can be read by other users",
                    "Make it readable by this user alone: chmod 600",
                )
            text = file.read(_LONGEST_PASSWORD + 1).decode("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            subject, "its password_file cannot be read", "Check its path, which is relative to site.toml"
        ) from None
    if not text or len(text) > _LONGEST_PASSWORD:
        raise SettingsError(
            subject, "its password_file holds no password", "Write the password alone into the file"
        )
    return text
