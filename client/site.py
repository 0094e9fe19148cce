"""The composition root of a hospital: from `site.toml` to the paths, keys and rules it works with.

<site>/site.toml            settings; no secret in it
<secrets>/pseudonym.key     256 random bits; de-identification key; never leaves, never in data/
<secrets>/spend.key         256 random bits; names patients in the privacy ledger; never rotated
<data>/quarantine/          refused originals with their reason
<data>/dicom/               de-identified DICOM
<data>/index.sqlite         index of the de-identified studies
<data>/store/               preprocessed, memory-mapped arrays
<data>/scores/              this hospital's own scores of its own patients; never leave
<state>/ledger.sqlite       the privacy ledger
<state>/audit.jsonl         what happened, hash-chained
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import tomli_w
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings_class

from client import site_keys
from client.courier import CourierSettings
from client.deid.settings import DeidSettings, OwnMaker
from client.federation_settings import FederationSettings
from client.pacs.settings import PacsSettings
from client.policy import Policy
from client.site_keys import PSEUDONYM, SPEND
from common.durability import relaxed
from common.errors import SettingsError
from common.settings import load_settings
from common.types import SiteName

_NAME: Final = "[a-z0-9][a-z0-9_-]{0,62}"


@settings_class(frozen=True, config=ConfigDict(extra="forbid"))
class SiteSection:
    """`[site]`: who this hospital is and where its things lie (relative to site.toml)."""

    name: Annotated[str, Field(pattern=rf"^{_NAME}$")]
    data: str = "data"
    state: str = "state"
    secrets: str = "secrets"
    simulated: bool = False
    """True only for the virtual hospitals of a simulation; stamped on everything they send."""
    patients_bucket: Annotated[int, Field(ge=0)] = 0
    """Public, coarse number of training patients; 0: taken once from the first ingestion."""


@settings_class(frozen=True, config=ConfigDict(extra="forbid"))
class SiteSettings:
    """The whole of site.toml."""

    site: SiteSection
    policy: Policy = field(default_factory=Policy)
    deid: DeidSettings = field(default_factory=DeidSettings)
    pacs: PacsSettings = field(default_factory=PacsSettings)
    federation: FederationSettings = field(default_factory=FederationSettings)
    courier: CourierSettings = field(default_factory=CourierSettings)


@dataclass(frozen=True)
class Site:
    """A hospital's paths, keys and policy, ready for use. Keys never show in a repr."""

    name: SiteName
    folder: Path
    data: Path
    state: Path
    policy: Policy
    simulated: bool
    patients_bucket: int
    pseudonym_key: bytes = field(repr=False)
    spend_key: bytes = field(repr=False)
    deid: DeidSettings = field(default_factory=DeidSettings)
    pacs: PacsSettings = field(default_factory=PacsSettings)
    secrets: Path = Path("secrets")
    """Folder of the keys; never inside `data`."""
    federation: FederationSettings = field(default_factory=FederationSettings)
    courier: CourierSettings = field(default_factory=CourierSettings)

    @property
    def tighten(self) -> str:
        """Text of the site's own stricter profile; empty when there is none.

        Raises:
            SettingsError: the file it names cannot be read.
        """
        if not self.deid.tighten:
            return ""
        try:
            return (self.folder / self.deid.tighten).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise SettingsError(
                "deid.tighten",
                "the file it names cannot be read",
                "Check its path, which is relative to site.toml",
            ) from None

    @property
    def inbox(self) -> Path:
        """Instances received from the archive and not yet taken in; identified data."""
        return self.folder / self.pacs.inbox

    @property
    def quarantine(self) -> Path:
        """Refused originals, each beside its reason."""
        return self.data / "quarantine"

    @property
    def dicom(self) -> Path:
        """De-identified DICOM files."""
        return self.data / "dicom"

    @property
    def index(self) -> Path:
        """The SQLite index."""
        return self.data / "index.sqlite"

    @property
    def store(self) -> Path:
        """Preprocessed arrays."""
        return self.data / "store"

    @property
    def scores(self) -> Path:
        """Scores of this hospital's own patients; they never leave."""
        return self.data / "scores"

    @property
    def ledger(self) -> Path:
        """The privacy ledger."""
        return self.state / "ledger.sqlite"

    @property
    def audit(self) -> Path:
        """The hash-chained log."""
        return self.state / "audit.jsonl"


def init_site(
    folder: Path,
    name: str,
    *,
    simulation_seed: int | None = None,
    policy: Policy | None = None,
    makers: Sequence[OwnMaker] = (),
) -> Site:
    """Make a new site in `folder`: settings, keys, empty data and state.

    Args:
        folder: where site.toml goes.
        name: the hospital's short name.
        simulation_seed: given for a virtual hospital only, which is stamped as simulated. Its keys
            follow from the seed, so that a simulation can be replayed to the bit.
        policy: the hospital's policy; the strict default when not given.
        makers: machines of its own that are written by name, for `[[deid.makers]]`.

    Raises:
        SettingsError: when the folder already holds a site, or the name is not allowed.
    """
    path = folder / "site.toml"
    if path.exists():
        raise SettingsError(path.name, "this folder already holds a site", "Use it, or choose another folder")
    if not re.fullmatch(_NAME, name):
        raise SettingsError(
            "the site's name",
            "it is made of a-z, 0-9, hyphen and underscore, begins with a letter or digit, and has at most 63",
            "Choose another name, such as st-anna",
        )
    folder.mkdir(parents=True, exist_ok=True)
    who = {"name": name, "simulated": simulation_seed is not None}
    path.write_text(_text(who, policy or Policy(), makers), encoding="utf-8")
    section = load_settings(path, SiteSettings, {}).site
    keys = _keys_apart(folder, section)
    site_keys.make(keys, name, simulation_seed)
    for part in (section.data, section.state):
        (folder / part).mkdir(mode=0o700, exist_ok=True)
    return load_site(folder)


def load_site(folder: Path, *, rotating: bool = False) -> Site:
    """Read a site; without its keys nothing starts.

    Args:
        folder: which holds site.toml.
        rotating: True only for `client.deid.rotate`, which goes on where a rotation of the key was cut short.

    Raises:
        SettingsError: a missing or wrong site.toml, a missing or malformed key, keys inside the data folder, or
            a rotation that has begun and not ended; or a real site in a process that simulates (`common.durability`).
    """
    settings = load_settings(folder / "site.toml", SiteSettings)
    section = settings.site
    if relaxed() and not section.simulated:
        rule = "this process simulates, and does not push what it writes to the disk"
        raise SettingsError("site.simulated", rule, "Work on a real hospital in a process of its own")
    keys = _keys_apart(folder, section)
    if not rotating:
        site_keys.check_rotation(keys)
    return Site(
        name=SiteName(section.name),
        folder=folder,
        data=folder / section.data,
        state=folder / section.state,
        policy=settings.policy,
        simulated=section.simulated,
        patients_bucket=section.patients_bucket,
        pseudonym_key=site_keys.read(keys / PSEUDONYM),
        spend_key=site_keys.read(keys / SPEND),
        deid=settings.deid,
        pacs=settings.pacs,
        secrets=keys,
        federation=settings.federation,
        courier=settings.courier,
    )


def check_key(site: Site) -> None:
    """Refuse to work on with a key that is no longer the site's; a process may outlive a rotation.

    Raises:
        SettingsError: `key-changed`, `key-rotating`, or the key is missing.
    """
    site_keys.check_rotation(site.secrets)
    if site_keys.read(site.secrets / PSEUDONYM) != site.pseudonym_key:
        raise SettingsError(
            "pseudonym.key",
            "the key was changed since this process started",
            "Stop it and start it again",
            code="key-changed",
        )


def _keys_apart(folder: Path, section: SiteSection) -> Path:
    """The folder of the keys, once it is sure that neither it nor the state lies inside the data.

    Raises:
        SettingsError: naming the one that does; whoever copies the data would copy the key to it.
    """
    data = (folder / section.data).resolve()
    places = {"secrets": section.secrets, "state": section.state}
    for name, place in places.items():
        if (folder / place).resolve().is_relative_to(data):
            raise SettingsError(
                f"site.{name}",
                "it lies inside the data folder, so that who copies the data could name the patients",
                f"Move it beside the data and set site.{name} in site.toml",
            )
    return folder / section.secrets


def _text(site: dict[str, Any], policy: Policy, makers: Sequence[OwnMaker]) -> str:
    """A new site.toml."""
    settings: dict[str, Any] = {"site": site, "policy": _policy_dict(policy)}
    if makers:
        settings["deid"] = {"makers": [{"name": one.name, "models": list(one.models)} for one in makers]}
    return tomli_w.dumps(settings)


def _policy_dict(policy: Policy) -> dict[str, object]:
    return {
        k: list(v) if isinstance(v, tuple) else v for k, v in vars(policy).items() if not k.startswith("_")
    }
