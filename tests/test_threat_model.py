"""docs/threat-model.md claims nothing without a test that is there, and every refusal by name can leave."""

from __future__ import annotations

import re
from pathlib import Path

from client.privacy import masking_checks
from common.codes import REFUSALS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 15
    for path, function in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{path}::{function}"


def test_every_refusal_of_a_masked_round_is_explained_and_may_be_said():
    source = "".join(path.read_text() for path in (ROOT / "client" / "privacy").glob("masking*.py"))
    raised = {f"secagg-{code}" for code in re.findall(r'refused\(\s*"([a-z-]+)"', source)}
    raised |= {f"secagg-{code}" for code in re.findall(r'\("(two-[a-z]+)",', source)}
    explained = set(re.findall(r"^(secagg-[a-z-]+)\s", masking_checks.__doc__ or "", re.MULTILINE))
    assert raised <= explained <= REFUSALS
    assert len(explained) >= 15


def test_the_two_ways_are_never_claimed_together():
    rows = [line for line in TEXT.splitlines() if line.startswith("| against a hospital that sends nonsense")]
    assert len(rows) == 1
    visible, secure = rows[0].split("|")[2:4]
    assert "robust rules" in visible
    assert "nobody is named" in secure
