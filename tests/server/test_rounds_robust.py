"""Whole federations in which one hospital lies, under each rule; the honest ones agree among themselves."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Message

from client import direct
from common import wire
from common.checkpoints import load
from common.compression import compress
from common.messages import Kind, Update
from server.start import start_of
from simulations.grid import InProcessGrid, run_on
from tests.toy import target_of, toy_plan, toy_service

SITES = {f"s{k}": 100 for k in range(7)}
RULES = ("norm-bound", "trimmed-mean", "median", "multi-krum", "bulyan")


class _Changed(InProcessGrid):
    """Every update is changed on its way."""

    def __init__(self, folders, change):
        super().__init__(folders)
        self.change = change

    def deliver(self, message):
        replies = super().deliver(message)
        asked = wire.unpack(wire.from_records(message.content))
        if asked.kind is not Kind.TRAIN:
            return replies
        update = wire.unpack(wire.from_records(replies[0].content))
        blob = wire.pack(Update(**{**vars(update), **self.change(update)}))
        return [Message(wire.to_records(blob), reply_to=message)]


def _folders(folder):
    services = [toy_service(folder, name, bucket) for name, bucket in SITES.items()]
    for service in services:
        direct.host(service)
    return [service.site.folder for service in services]


def _plan(rule, **federation):
    return toy_plan(**{"rounds": 6, "least_sites": 7, "robust": rule, "max_update_norm": 1e9, **federation})


def _distance(model, plan):
    """How far the model is from what the honest sites agree on, in units of how far it began."""
    start = start_of(plan).arrays
    away = sum(float(np.sum((model[n] - target_of("s0", n, a.shape)) ** 2)) for n, a in start.items())
    begun = sum(float(np.sum((a - target_of("s0", n, a.shape)) ** 2)) for n, a in start.items())
    return (away / begun) ** 0.5


def _agreed(update):
    """What this site would send if it wanted what s0 wants, and a little of its own."""
    arrays = {}
    for name, array in update.arrays.items():
        own, common = target_of(update.site, name, array.shape), target_of("s0", name, array.shape)
        arrays[name] = (array + (common - own) * np.float32(0.45)).astype(np.float32)
    return arrays


def _one_liar(update):
    arrays = _agreed(update)
    if update.site == "s6":
        arrays = {name: np.float32(-50) * array for name, array in arrays.items()}
    return {"arrays": arrays}


def _end(folder, plan, change):
    run_on(_Changed(_folders(folder), change), plan, folder / "out")
    return load(folder / "out" / "model.safetensors", start_of(plan).architecture).arrays


@pytest.mark.parametrize("rule", RULES)
def test_one_liar_among_seven_does_not_carry_the_model_away(tmp_path, rule):
    plan = _plan(rule)
    assert _distance(_end(tmp_path, plan, _one_liar), plan) < 0.6


def test_without_a_rule_it_does(tmp_path):
    """The same lie under `none`: what the tests above would not notice without it."""
    plan = _plan("none")
    assert _distance(_end(tmp_path, plan, _one_liar), plan) > 5


@pytest.mark.parametrize("bits", [8, 16])
def test_a_federation_in_fewer_bits_comes_to_nearly_the_same_model(tmp_path, bits):
    def fewer(update):
        return {
            "arrays": compress(update.arrays, bits, (update.run, update.round, update.site)),
            "bits": bits,
        }

    plain = _end(tmp_path / "plain", _plan("norm-bound"), lambda _u: {})
    small = _end(tmp_path / "small", _plan("norm-bound", update_bits=bits), fewer)
    scale = max(float(np.abs(a).max()) for a in plain.values())
    apart = max(float(np.abs(plain[n] - small[n]).max()) for n in plain)
    assert 0 < apart < scale * 4 / (2 ** (bits - 1) - 1)
