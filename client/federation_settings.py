"""`[federation]` of site.toml: how this hospital reaches its federation."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT: Final = ConfigDict(extra="forbid")
Port = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True, config=_STRICT)
class FederationSettings:
    """The one way out; nothing listens but on loopback."""

    address: Annotated[str, Field(pattern=r"^$|^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")] = ""
    """`host:port` of the federation's edge; empty: the first of the kit."""
    proxy: Annotated[str, Field(pattern=r"^$|^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}$")] = ""
    """`host:port` of the hospital's HTTP proxy, asked to CONNECT; empty: none."""
    proxy_user: Annotated[str, Field(pattern=r"^[^\s:]{0,128}$")] = ""
    proxy_password_file: str = ""
    """Relative to site.toml."""
    tunnel_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")] = "127.0.0.1"
    """Where the tunnel listens for the node; another than loopback only where the node is in a container of its own."""
    tunnel_port: Port = 9095
    """Port at which the node finds the federation; the tunnel uses the next one too."""
