"""Nobody looks for the consortium's SuperLink more than a few seconds after it is there again."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator

import pytest
from flwr.supercore.retry import make_simple_http_retry_invoker

from common.again import LONGEST_S, RETRY, sooner
from common.moved import changed


@pytest.fixture
def retry() -> Iterator[object]:
    module = importlib.import_module(RETRY)
    before = module.MAX_RETRY_DELAY
    yield module
    module.MAX_RETRY_DELAY = before


def test_a_process_tries_again_within_a_few_seconds_however_long_it_has_tried(retry):
    """Flower's own invoker, made before: whoever holds one already is quicker, too."""
    invoker = make_simple_http_retry_invoker()
    assert max(itertools.islice(invoker.wait_gen_factory(), 30)) > LONGEST_S
    sooner()
    pauses = list(itertools.islice(invoker.wait_gen_factory(), 30))
    assert pauses[0] == 1
    assert max(pauses) == LONGEST_S


def test_flower_still_reads_the_longest_pause_there():
    assert (
        changed(
            {
                (
                    RETRY,
                    "make_simple_http_retry_invoker",
                ): "49e12326a4b17e2648852ef33922c41f7b4a7302d43a5afc2a2e9830b7ab801a"
            }
        )
        == []
    )
