"""What sealing costs: the model is hashed once for all sites, and each still gets an envelope of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from flwr.app import Message, MessageType
from flwr.supercore.task_identity import TaskIdentity

from common import envelope, wire
from common.envelope import Expected, of_server
from common.identity import Identity
from common.messages import Instruction, Kind
from common.parts import PART, parts
from common.roster import sign_roster
from server.seals import SealedGrid, Seals
from simulations.grid import InProcessGrid


class _Kept(InProcessGrid):
    """A grid that delivers nothing."""

    def __init__(self) -> None:
        super().__init__([])
        self.contents: list = []

    def push_messages(self, messages):
        """Keep what was pushed."""
        self.contents += [message.content for message in messages]
        return [str(len(self.contents))]


class _Counting:
    """SHA-256 that counts what goes through it."""

    bytes = 0

    def __init__(self, sha256) -> None:
        self._made = sha256

    def __call__(self, first: bytes = b""):
        """A state to which bytes are added."""
        outer, state = self, self._made(first)

        class State:
            def update(self, part) -> None:
                outer.bytes += len(part)
                state.update(part)

            def digest(self) -> bytes:
                return state.digest()

        return State()


def _question(values: int, seed: int) -> bytes:
    weights = np.random.default_rng(seed).standard_normal(values).astype(np.float32)
    asked = Instruction(Kind.TRAIN, "run-1", 1, "", "sha256:1", "sha256:2", arrays={"w": weights})
    return wire.pack(asked)


def test_a_model_is_hashed_once_for_all_sites_and_every_envelope_holds(tmp_path: Path, monkeypatch):
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 7, 0, 0
    identity = Identity.make(tmp_path / "server.key")
    inner = _Kept()
    grid = SealedGrid(inner, Seals(identity, sign_roster(identity, "lungs", 1, ())))
    blobs = [_question(PART // 2, seed) for seed in (1, 2)]
    counting = _Counting(hashlib.sha256)
    monkeypatch.setattr(envelope.hashlib, "sha256", counting)
    for blob in blobs:
        held = dict(parts(blob))
        for node in range(1, 9):
            grid.push_messages([Message(wire.to_records(held), node, MessageType.TRAIN, ttl=60.0)])
    monkeypatch.undo()
    assert counting.bytes == sum(len(blob) for blob in blobs)
    heads = [wire.spread(content)[0] for content in inner.contents]
    assert len({envelope.peek(head).nonce for head in heads}) == 16
    for place, head in enumerate(heads):
        expected = Expected(
            identity.public, of_server("lungs"), (envelope.peek(head).to,), envelope.now_ms(), "run-1", 1
        )
        envelope.open_head(head, envelope.body_digest(blobs[place // 8]), expected)
