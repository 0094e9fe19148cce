"""The site service of a toy hospital, on its socket, as a process of its own: `python -m simulations.faults.service`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from client.service import SiteService
from client.site import load_site
from client.socket import serve
from common.logs import configure
from simulations.faults.toy import ToyDuties


def command(site: Path, socket: Path) -> tuple[str, ...]:
    """The command line that serves this site on this socket."""
    return (sys.executable, "-m", "simulations.faults.service", str(site), str(socket))


def main() -> None:
    """Serve the site named on the command line until told to stop."""
    configure("INFO")
    site = load_site(Path(sys.argv[1]))
    duties = ToyDuties(site.name, site.state, site.patients_bucket or 100)
    service = SiteService(site, duties, on_hung=lambda: os._exit(os.EX_TEMPFAIL))
    server = serve(service, Path(sys.argv[2]))
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=None))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
