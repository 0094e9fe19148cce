"""The edge: nginx before the SuperLink and the api, the only process that the world can reach.

Flower's open-source server answers whoever reaches its port. So it listens on loopback, and the edge lets
through what members' nodes need and nothing else; `server/edge.conf` is the whole of it, line by line.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

from jinja2 import Environment, StrictUndefined

from common.errors import FederationError, SettingsError
from server.federation_folder import Consortium

CONF: Final = "edge.conf"
_TEMPLATE: Final = Path(__file__).with_name(CONF)
_CHECK_S: Final = 30.0
_ANSWER_S: Final = 2.0


def check_path(folder: Path) -> None:
    """Refuse a federation's folder whose path nginx would read as something else.

    Raises:
        SettingsError: `edge-path`.
    """
    if any(letter in str(folder.absolute()) for letter in " ;{}\"'$\\\n"):
        raise SettingsError(
            folder.name,
            "its path has a character that means something to nginx",
            "Choose a plain path for the federation's folder, such as /srv/consortium",
            code="edge-path",
        )


def write(consortium: Consortium) -> Path:
    """Write nginx's settings into the federation's folder, from its server.toml.

    Returns:
        Their path.

    Raises:
        SettingsError: `edge-path` when the folder's path has a character that nginx would read as its own.
    """
    settings, run = consortium.settings, consortium.run
    check_path(consortium.folder)
    text = Environment(undefined=StrictUndefined, autoescape=False).from_string(  # noqa: S701 - no HTML
        _TEMPLATE.read_text(encoding="utf-8")
    )
    values = {"run": run, "pki": consortium.pki, "edge": settings.edge, "secret": consortium.edge_secret}
    values |= {"superlink": _address(settings.superlink.host, settings.superlink.port)}
    values |= {"api": _address(settings.api.host, settings.api.port)}
    (run / "edge").mkdir(parents=True, exist_ok=True)
    path = run / CONF
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text.render(values), encoding="utf-8")
    return path


def command(consortium: Consortium) -> list[str]:
    """Write the settings, and give the process that serves by them; it stays in the foreground.

    Raises:
        SettingsError: as `write`, or `edge-missing` when there is no nginx on this machine.
    """
    path = write(consortium)
    return [_nginx(), "-p", str(consortium.run), "-c", str(path), "-e", str(consortium.run / "edge.log")]


def logs(consortium: Consortium) -> tuple[Path, ...]:
    """What nginx writes, and somebody has to keep from growing."""
    return tuple(consortium.run / name for name in ("edge.log", "edge-access.log", "edge-fleet.log"))


def check(consortium: Consortium) -> None:
    """Have nginx read the settings without serving.

    Raises:
        FederationError: `edge` when it does not accept them; its own words are in `run/edge.log`.
    """
    done = subprocess.run(  # noqa: S603 - our own command line
        [*command(consortium), "-t", "-q"], capture_output=True, timeout=_CHECK_S, check=False
    )
    if done.returncode:
        raise FederationError(
            CONF, "nginx does not accept it", "Read run/edge.log, and correct server.toml", code="edge"
        )


def reload(consortium: Consortium) -> bool:
    """Tell a running edge to read settings, certificates and revocation list again; False when none runs."""
    try:
        os.kill(int((consortium.run / "edge.pid").read_text()), signal.SIGHUP)
    except (OSError, ValueError):
        return False
    return True


def answers(consortium: Consortium) -> bool:
    """Whether something listens at each address of the edge."""
    for address in consortium.settings.edge.listen:
        host, _, port = address.rpartition(":")
        here = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104 - compared, not bound
        try:
            with socket.create_connection((here, int(port)), timeout=_ANSWER_S):
                continue
        except OSError:
            return False
    return True


def _nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SettingsError(
            "nginx",
            "it is not on this machine",
            "Install it, e.g. apt-get install nginx",
            code="edge-missing",
        )
    return found


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
