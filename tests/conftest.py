"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# Hypothesis gives an example 200 ms by the clock, which a busy machine takes for an import; it gives more only where
# it sees that it runs in CI. Whatever else it does there stays as it is.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")
