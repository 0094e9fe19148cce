"""Flower's executor, with one thing more: it ends when an app that it started was killed.

Flower's own does not look back at the apps it started: one that was killed (by the kernel for its memory, say)
leaves its node busy for a minute and a run for dead. Here the executor ends with `KILLED`, and its supervisor
starts it anew at once, on a hospital's side together with the SuperNode, so that the question can be asked again.

    python -m common.executor --insecure --runtime-api-address 127.0.0.1:9094
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

KILLED: Final = os.EX_TEMPFAIL
"""Exit status when an app was ended by a signal."""
MODULE: Final = "common.executor"


def command(runtime_api_address: str, secret_file: str = "", authority: str = "") -> tuple[str, ...]:
    """The command line of an executor for the SuperLink or SuperNode at this address.

    Args:
        runtime_api_address: host and port on this machine.
        secret_file: path of what proves that the executor is ours; empty: the other side does not ask.
        authority: path of the certificate that vouches for the other side's; empty: no TLS on this machine.
    """
    proof = ("--superexec-auth-secret-file", secret_file) if secret_file else ()
    trust = ("--root-certificates", authority) if authority else ("--insecure",)
    return (sys.executable, "-m", MODULE, "--runtime-api-address", runtime_api_address, *trust, *proof)


def look_back(_signal: int, _frame: object) -> None:
    """A child ended: forget it when it ended by itself, and end with it when it was killed."""
    while True:
        try:
            child, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if child == 0:
            return
        if os.WIFSIGNALED(status):
            # Nothing is left to put in order: what counts is on disk, and the supervisor ends our other children.
            os._exit(KILLED)


def main() -> None:
    """Run Flower's executor with the arguments of this process."""
    from flwr.supercore.cli.flower_superexec import flower_superexec  # noqa: PLC0415 - slow to import

    signal.signal(signal.SIGCHLD, look_back)
    flower_superexec()


if __name__ == "__main__":
    main()
