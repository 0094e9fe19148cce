"""What holds for every test."""

from __future__ import annotations

import signal

from hypothesis import settings

# Hypothesis gives an example 200 ms by the clock, which a busy machine takes for an import; it gives more only where
# it sees that it runs in CI. Whatever else it does there stays as it is.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

# A shell has what it starts in the background ignore Ctrl-C, and so would every program that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
