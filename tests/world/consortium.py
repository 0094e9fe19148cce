"""A consortium of real processes on loopback, and hospitals that enrol with it through its real edge."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from client.enrolment import Enrolment, enrol
from client.site import Site, init_site, load_site
from common.kit import Kit
from server import api, edge, enrolment, nodes
from server.federation_folder import Consortium
from tests.orthanc import program
from tests.world.processes import Processes, free_ports, listening, until

FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}
BIN = Path(sys.executable).parent


@dataclass
class World:
    """A consortium's folder and its running processes."""

    consortium: Consortium
    processes: Processes
    host: str
    children: dict[str, object] = field(default_factory=dict)

    @property
    def address(self) -> tuple[str, int]:
        """Of the edge."""
        host, _, port = self.consortium.settings.federation.addresses[-1].rpartition(":")
        return host.strip("[]"), int(port)

    def start_api(self) -> subprocess.Popen[bytes]:
        at = self.consortium.settings.api
        served = self.processes.start("api", api.command(self.consortium), **api.environment(self.consortium))
        until("the api listens", lambda: listening(at.host, at.port))
        return served

    def start_edge(self) -> None:
        program("nginx", "nginx")
        edge.check(self.consortium)
        self.processes.start("edge", edge.command(self.consortium))
        until("the edge listens", lambda: listening(*self.address))

    def start_superlink(self) -> None:
        consortium, at = self.consortium, self.consortium.settings.superlink
        tls = [
            "--ssl-certfile",
            "superlink.crt",
            "--ssl-keyfile",
            "superlink.key",
            "--ssl-ca-certfile",
            "ca.crt",
        ]
        tls = [word if word.startswith("--") else str(consortium.pki / word) for word in tls]
        command = [str(BIN / "flower-superlink"), "--host", at.host, "--port", str(at.port), *tls]
        command += ["--isolation", "process", "--superexec-auth-secret-file", str(consortium.executor_secret)]
        command += ["--database", str(consortium.run / "superlink.sqlite"), "--enable-supernode-auth"]
        home = str(self.processes.folder / "flower")
        path = f"{BIN}:{os.environ['PATH']}"
        consortium.run.mkdir(exist_ok=True)
        self.processes.start("superlink", command, **FLOWER, FLWR_HOME=home, PATH=path)
        until("the SuperLink listens", lambda: listening(at.host, at.port))

    def invite(self, name: str) -> tuple[Kit, str]:
        return enrolment.invite(self.consortium, name)

    def enrol(self, site: Site) -> Enrolment:
        """Invited, asked, admitted, and the certificate fetched, as its people would."""
        kit, code = self.invite(site.name)
        assert not enrol(site, kit, code).admitted
        enrolment.admit(self.consortium, site.name)
        return enrol(site, kit, "")

    def await_nodes(self, *names: str) -> None:
        """Wait until the consortium's own upkeep has registered these members' nodes with the SuperLink."""
        until(f"the nodes of {names}", lambda: set(names) <= set(nodes.registered(self.consortium)))


def make(
    folder: Path, processes: Processes, host: str = "127.0.0.1", also: str = "", **edge_settings: object
) -> World:
    """A consortium whose edge listens at `host`, and at `also` without telling anybody; nothing runs yet.

    Args:
        folder: the consortium's.
        processes: that will run.
        host: the edge's address, `[::1]` included.
        also: another.
        edge_settings: of server.toml; `dead` is an address that kits name first and nobody listens at.
    """
    inner, api_port, health = free_ports(3)
    (outer,) = free_ports(1, "127.0.0.1" if ":" in host else host)
    dead = str(edge_settings.pop("dead", ""))
    Consortium.init(folder, "lungs", [*([dead] if dead else []), f"{host}:{outer}"])
    path = folder / "server.toml"
    values = tomllib.loads(path.read_text())
    listen = [f"{at}:{outer}" for at in (host, also) if at]
    values["edge"] = {"listen": listen, "enrol_per_minute": 60_000, **edge_settings}
    values |= {
        "superlink": {"port": inner, "health_port": health},
        "api": {"port": api_port},
        "dashboard": {"port": 0},
    }
    path.write_text(tomli_w.dumps(values))
    return World(Consortium.open(folder), processes, host)


def hospital(folder: Path, name: str, **federation: object) -> Site:
    """A hospital with its `[federation]` settings; not enrolled yet."""
    init_site(folder, name)
    path = folder / "site.toml"
    values = tomllib.loads(path.read_text())
    (port,) = free_ports(1, in_a_row=2)
    values["federation"] = {"tunnel_port": port, **federation}
    path.write_text(tomli_w.dumps(values))
    return load_site(folder)
