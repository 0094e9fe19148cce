"""One side of a federation to be hurt, as a process: the consortium, or a toy hospital.

python -m simulations.faults.side CONSORTIUM_FOLDER
python -m simulations.faults.side SITE_FOLDER SUPERLINK_ADDRESS
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from client import deployment as hospital
from client.site import load_site
from common.logs import configure
from server import deployment as consortium
from server.federation_folder import SETTINGS, Consortium
from simulations.faults import service


def main() -> None:
    """Keep the side named on the command line running until told to stop."""
    configure("INFO")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    folder, word = Path(sys.argv[1]), "".join(sys.argv[2:3])

    def go_on() -> bool:
        return not ended.is_set()

    if (folder / SETTINGS).exists():
        consortium.serve(consortium.Start(Consortium.open(folder), loopback=bool(word)), go_on)
        return
    site = load_site(folder)
    started = hospital.Start(site, word)
    served = service.command(folder.resolve(), started.socket.resolve())
    hospital.serve(hospital.Start(site, word, service=served), go_on)


if __name__ == "__main__":
    main()
