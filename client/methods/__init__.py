"""What methods change in one round at a site, and what they leave to it: state in, state out (docs/methods.md)."""

from __future__ import annotations

from client.methods.learn import Learned, Round, learn
from client.methods.memory import Memory
from client.methods.own import Own, saved

__all__ = ["Learned", "Memory", "Own", "Round", "learn", "saved"]
