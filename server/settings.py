"""`server.toml`: the settings of a consortium's server; every secret is a path to a file."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT: Final = ConfigDict(extra="forbid")
Port = Annotated[int, Field(ge=1, le=65535)]
Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")]
"""`host:port`."""


@dataclass(frozen=True, config=_STRICT)
class Federation:
    """`[federation]`: its name, and where hospitals find it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    addresses: Annotated[tuple[Address, ...], Field(min_length=1)]
    """As hospitals reach the edge, tried in turn; they stand in every kit and in the edge's certificate."""


@dataclass(frozen=True, config=_STRICT)
class CertificateAuthority:
    """`[ca]`."""

    passphrase_file: str = "secrets/ca.passphrase"  # noqa: S105 - a file's name
    """The passphrase of the authority's key, in a file of its own that its owner alone can read."""


@dataclass(frozen=True, config=_STRICT)
class Enrolment:
    """`[enrolment]`."""

    code_days: Annotated[int, Field(ge=1, le=90)] = 14
    """How long a one-time code may be used."""


@dataclass(frozen=True, config=_STRICT)
class Edge:
    """`[edge]`: the one door, nginx."""

    listen: Annotated[tuple[Address, ...], Field(min_length=1)] = ("0.0.0.0:443",)
    body_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Largest request of a hospital's node; Flower sends models in pieces of 5 MiB."""
    fleet_per_s: Annotated[int, Field(ge=1)] = 100
    """Requests of one hospital's node in a second; twice as many at once."""
    enrol_per_minute: Annotated[int, Field(ge=1)] = 10
    """Requests to enrol from one address in a minute."""
    connections: Annotated[int, Field(ge=1)] = 64
    """Open connections from one address."""


@dataclass(frozen=True, config=_STRICT)
class Loopback:
    """Where one of the server's own processes listens: this machine's loopback and nothing else, by rule.

    Flower's server answers whoever reaches its port; a slip in a settings file must not open it.
    """

    host: Annotated[str, Field(pattern=r"^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$")] = "127.0.0.1"
    port: Port = 9092


@dataclass(frozen=True, config=_STRICT)
class SuperLink(Loopback):
    """`[superlink]`: Flower's server."""

    health_port: Annotated[int, Field(ge=0, le=65535)] = 9093
    """Where it answers gRPC's health service, without TLS; 0: nowhere."""


@dataclass(frozen=True, config=_STRICT)
class Dashboard:
    """`[dashboard]`: the page, /healthz, /readyz and /metrics, always on 127.0.0.1."""

    port: Annotated[int, Field(ge=0, le=65535)] = 9098
    """0: any that is free; the page's address is in run/dashboard.url."""


@dataclass(frozen=True, config=_STRICT)
class Audit:
    """`[audit]`."""

    keep_years: Annotated[int, Field(ge=1, le=100)] = 6
    """Closed files of the consortium's log older than that are forgotten; a line of the log says so."""


@dataclass(frozen=True, config=_STRICT)
class Tracking:
    """`[tracking]`: who else is told of every round; nobody by default."""

    tensorboard: str = ""
    """Folder of TensorBoard's event files, relative to the consortium's; empty: none are written."""
    mlflow: Annotated[
        str,
        Field(pattern=r"^$|^https://[^/@\s]+(/\S*)?$|^http://(127(\.\d{1,3}){3}|localhost)(:\d+)?(/\S*)?$"),
    ] = ""
    """Address of an MLflow tracking server; plain http on this machine's loopback only; empty: none is told."""
    mlflow_secret_file: str = ""  # a file's name
    """File with the value of the Authorization header, such as `Bearer …`, that its owner alone can read."""
    experiment: str = ""
    """MLflow's experiment; empty: the federation's name."""


@dataclass(frozen=True, config=_STRICT)
class ServerSettings:
    """The whole of server.toml."""

    federation: Federation
    ca: CertificateAuthority = field(default_factory=CertificateAuthority)
    enrolment: Enrolment = field(default_factory=Enrolment)
    edge: Edge = field(default_factory=Edge)
    superlink: SuperLink = field(default_factory=SuperLink)
    api: Loopback = field(default_factory=lambda: Loopback(port=9094))
    dashboard: Dashboard = field(default_factory=Dashboard)
    audit: Audit = field(default_factory=Audit)
    tracking: Tracking = field(default_factory=Tracking)
