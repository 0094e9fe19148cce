"""The process that keeps a hospital's certificate fresh: `python -m client.renewal SITE`, kept running by `start`.

Once an hour it asks whether the certificate ends within a month. If so it fetches the next one and tells the tunnel;
a newer roster is kept for a person to accept. What fails is tried again sooner: there is a month for it.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client import tunnel
from client.enrolment import renew
from common.errors import ConsiliumError
from common.logs import Log, configure

if TYPE_CHECKING:
    from client.enrolment import Clock
    from client.site import Site

HOUR_S: Final = 3600.0
_SOON_S: Final = 300.0
_LOG: Final = Log("client.renewal")


def command(site: Site) -> list[str]:
    """The process for this site."""
    return [sys.executable, "-m", "client.renewal", str(site.folder.resolve())]


def once(site: Site, clock: Clock = time.time) -> bool:
    """Renew where it is due.

    Returns:
        Whether all went well; a failure is in the log by its code, and the old certificate stays.
    """
    try:
        given = renew(site, clock)
    except ConsiliumError as error:
        _LOG.warning("renewal.failed", code=error.code)
        return False
    if given is not None:
        told = tunnel.reload(site)
        _LOG.info("renewal.done", digest=given.fingerprint, state="told" if told else "no-tunnel")
    return True


def main(words: list[str]) -> None:
    """Go on until a signal ends it.

    Args:
        words: the site's folder, and for tests how many seconds lie between two looks.
    """
    from client.site import load_site  # noqa: PLC0415 - it reads the whole policy, which importers may not want

    configure("INFO")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    every = float(words[1]) if len(words) > 1 else HOUR_S
    site = load_site(Path(words[0]))
    while not ended.is_set():
        ended.wait(every if once(site) else min(every, _SOON_S))


if __name__ == "__main__":
    main(sys.argv[1:])
