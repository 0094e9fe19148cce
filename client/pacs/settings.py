"""`[pacs]` of site.toml: who may send, whom to ask, and how hard."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")
AeTitle = Annotated[str, Field(pattern=r"^[A-Za-z0-9_ .-]{1,16}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True, config=_STRICT)
class Tls:
    """Certificates by file; all three, or none for a plain connection inside the hospital."""

    certificate: str = ""
    key: str = ""
    authorities: str = ""
    """CA certificates that the other side must be signed by."""


@dataclass(frozen=True, config=_STRICT)
class Listen:
    """`[pacs.listen]`: the C-STORE listener."""

    host: str = "127.0.0.1"
    port: Port = 11112
    calling: tuple[AeTitle, ...] = ()
    """AE titles that may send; empty: nobody, and the listener does not start."""
    max_associations: Annotated[int, Field(ge=1, le=256)] = 10
    max_per_sender: Annotated[int, Field(ge=1, le=256)] = 8
    """Associations that one calling AE title may hold at a time."""
    quiet_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a new instance after which a study is complete."""
    floor_gib: Annotated[float, Field(ge=0)] = 5.0
    """Free disk below which instances are refused (A700, out of resources), so that the sender tries again."""
    backlog: Annotated[int, Field(ge=1)] = 20_000
    """Instances waiting in the inbox above which more are refused in the same way."""
    tls: Tls = field(default_factory=Tls)


@dataclass(frozen=True, config=_STRICT)
class Remote:
    """`[[pacs.remotes]]`: one archive that may be asked."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    ae_title: AeTitle = ""
    host: str = ""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    tls: Tls = field(default_factory=Tls)
    dicomweb: str = ""
    """Root URL of DICOMweb, e.g. https://pacs.example/dicom-web; empty: DIMSE only."""
    orthanc: str = ""
    """Root URL of Orthanc's REST interface, for `pacs watch`; empty: not watched."""
    user: str = ""
    password_file: str = ""
    """The password of DICOMweb and REST, in a file that only this user can read."""
    authorities: str = ""
    """CA certificates for https; empty: those of the system."""
    instances_per_s: Annotated[float, Field(gt=0)] = 50.0
    """At most so many instances a second are asked of it."""


@dataclass(frozen=True, config=_STRICT)
class PacsSettings:
    """The whole section."""

    ae_title: AeTitle = "CONSILIUM"
    inbox: str = "inbox"
    """Instances that came and are not yet taken in: identified data, relative to site.toml, owner only."""
    listen: Listen = field(default_factory=Listen)
    remotes: tuple[Remote, ...] = ()
