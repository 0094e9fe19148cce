"""What a hospital says of its machine in a survey: the release, roughly how much disk is free, how many GPUs.

Coarse on purpose: whoever is told knows whether a round can go well here, and cannot tell a machine from another.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.membership import load_membership
from common.messages import Kind, Reply, SiteHealth, SiteMetrics

if TYPE_CHECKING:
    from client.site import Site

_MOST_GPUS: Final = 16
_GB: Final = 1_000_000_000
_STEPS: Final = (5, 2, 1)


def told(site: Site, reply: Reply, kind: Kind) -> Reply:
    """The reply with the machine's health in it, where an enrolled hospital answers a survey."""
    if kind is not Kind.SURVEY or not isinstance(reply, SiteMetrics) or load_membership(site) is None:
        return reply
    return replace(reply, health=health(site))


def health(site: Site, devices: Path = Path("/dev")) -> SiteHealth:
    """As it is now.

    Args:
        site: whose data folder is measured.
        devices: where the driver's devices appear.
    """
    data = site.data if site.data.is_dir() else site.folder
    gpus = min(len(list(devices.glob("nvidia[0-9]*"))), _MOST_GPUS)
    return SiteHealth(release(), coarse(shutil.disk_usage(data).free // _GB), gpus)


def release() -> str:
    """The installed version; `0` where it is not installed as a package."""
    try:
        return installed("consilium").partition("+")[0]
    except PackageNotFoundError:
        return "0"


def coarse(number: int) -> int:
    """Rounded down to 1, 2 or 5 times a power of ten; 0 below one."""
    if number < 1:
        return 0
    power: int = 10 ** (len(str(number)) - 1)
    return next(step * power for step in _STEPS if step * power <= number)
