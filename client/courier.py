"""The courier's account: another one than the service's, so that what arrives over the wire reaches nothing but a socket.

The courier (Flower's SuperNode and ClientApp) runs code that arrives in an app bundle. Under an account of its own it can
open one socket and no file of this site. What it can still do, if a hostile bundle was approved, is to withhold and to delay.

1. The folders with data, state, keys and inbox are closed to every other account, or nothing starts.
2. The socket is the courier's group's; who connects is told by the kernel (`client.gate`).
3. The courier has a folder of its own for what Flower writes.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as settings_class

from common.errors import SettingsError

if TYPE_CHECKING:
    from client.site import Site


@settings_class(frozen=True, config=ConfigDict(extra="forbid"))
class CourierSettings:
    """`[courier]` of site.toml; paths are relative to it."""

    user: str = ""
    """Account, or its number, under which SuperNode and ClientApp run; empty: the service's own."""
    socket: str = "run/service.sock"
    """What the courier opens; in a folder of its own."""
    folder: str = "courier"
    """The courier's own, for what Flower writes."""


_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Courier:
    """An account of this machine and what is the courier's."""

    user: int
    group: int
    socket: Path
    """Which the courier opens."""
    folder: Path
    """Its own, for Flower's files."""


def courier_of(site: Site) -> Courier | None:
    """The courier as site.toml names it; None where it names none, and courier and service share an account.

    Raises:
        SettingsError: `courier-user` for an account that is not there, is root, or is the service's own.
    """
    name = site.courier.user
    if not name:
        return None
    try:
        known = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        user, group = known.pw_uid, known.pw_gid
    except KeyError:
        if not name.isdecimal():  # in a container an account may be a number only
            raise _wrong(
                f"there is no account {name}",
                "Make it: useradd --system --no-create-home, or name another",
            ) from None
        user = group = int(name)
    if user in (0, os.geteuid()):
        raise _wrong(
            "the courier's account is root's or the service's own",
            "Name an account that is for the courier alone",
        )
    return Courier(user, group, site.folder / site.courier.socket, site.folder / site.courier.folder)


def check_closed(site: Site, courier: Courier) -> None:
    """Refuse to work while the courier's account could open something of the site's.

    Raises:
        SettingsError: code `courier-open`, naming the folder and how to close it; `courier-user` for an account that is in
            the service's groups.
    """
    if os.getegid() in _groups(courier):
        raise _wrong("the courier's account is in the service's own group", "Take it out of that group")
    for folder in (site.data, site.state, site.secrets, site.inbox):
        if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & _OTHERS:
            raise SettingsError(
                f"folder {folder.name}",
                "other accounts than the service's may enter it",
                f"chmod 700 {folder.name}",
                code="courier-open",
            )


def furnish(courier: Courier) -> None:
    """Make the courier's own folder; needs root.

    Raises:
        SettingsError: code `courier-root` when this process may not give files away.
    """
    try:
        courier.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(courier.folder, courier.user, courier.group)
    except PermissionError:
        raise SettingsError(
            "courier.user",
            "only root can start a process under another account",
            "Start as root, or start service and courier apart, as deploy/ does, each under its own account",
            code="courier-root",
        ) from None


def _groups(courier: Courier) -> set[int]:
    try:
        name = pwd.getpwuid(courier.user).pw_name
    except KeyError:
        return {courier.group}
    return {courier.group} | {found.gr_gid for found in grp.getgrall() if name in found.gr_mem}


def _wrong(rule: str, remedy: str) -> SettingsError:
    return SettingsError("courier.user", rule, remedy, code="courier-user")
