"""What may be said on the wire: a closed, frozen, text-free vocabulary."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import pytest

from common import messages
from common.messages import Instruction, Kind, Progress, Refusal, SiteMetrics, Update

MESSAGES = [kind for _, kind in inspect.getmembers(messages, dataclasses.is_dataclass)]


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_cannot_be_changed_once_made(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined] - set by dataclasses


MASKED = {messages.Keys, messages.Shares, messages.Masked, messages.Consent, messages.Opened}


def test_the_reply_is_one_of_three_a_tally_or_an_answer_of_a_masked_round_and_nothing_else() -> None:
    assert set(typing.get_args(messages.Reply)) == {Update, SiteMetrics, Refusal, messages.Tally} | MASKED


def test_an_instruction_asks_for_one_of_these_things() -> None:
    figures, masked = {"survey", "analyse", "threshold", "evaluate"}, {"keys", "shares", "consent", "unmask"}
    assert {kind.value for kind in Kind} == {"present", "train"} | figures | masked


@pytest.mark.parametrize("kind", [Update, SiteMetrics, Refusal])
def test_every_reply_says_whose_which_run_which_round_and_which_code(kind: type) -> None:
    assert {"site", "run", "round", "code_digest"} <= {f.name for f in dataclasses.fields(kind)}


def test_a_refusal_carries_a_code_and_no_text() -> None:
    assert {f.name for f in dataclasses.fields(Refusal)} == {"site", "run", "round", "code", "code_digest"}


def test_what_leaves_a_hospital_has_no_field_for_a_patient() -> None:
    """Law 1: no pseudonym, path, UID, date or exact training count has a place on the wire."""
    forbidden = ("pseudonym", "patient_id", "path", "uid", "date", "name", "n_patients", "exact")
    for kind in MESSAGES:
        for field in dataclasses.fields(kind):
            assert not any(word in field.name for word in forbidden), f"{kind.__name__}.{field.name}"


def test_an_update_begins_without_figures() -> None:
    update = Update("a", "r", 1, "sha256:0", "sha256:1", 100, {})  # type: ignore[arg-type] - plain text ids
    assert update.progress == Progress(None, None)
    assert update.epsilon is None
    assert Instruction.__dataclass_fields__["threshold"].default is None
