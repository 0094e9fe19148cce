"""No patient attribute passes through a log line, whoever writes it and however."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import logs
from common.logs import REFUSED, Log, allowed, configure

CANARY = "Canary^Maria"
FIELDS = sorted(logs._NUMBER_FIELDS | logs._WORD_FIELDS)


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """`configure` changes the process; give pytest its own handlers back."""
    root, ours = logging.getLogger(), logging.getLogger("consilium")
    before = (list(root.handlers), root.level, ours.level)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]


def written(write) -> str:
    """Everything `write()` sent to the configured stream."""
    stream = io.StringIO()
    configure("DEBUG", stream)
    write()
    return stream.getvalue()


canaries = st.text(min_size=0, max_size=30).map(lambda text: f"{text}{CANARY}{text}")
values = st.one_of(
    canaries,
    st.lists(canaries, max_size=3),
    st.dictionaries(canaries, canaries, max_size=2),
    st.binary(max_size=5).map(lambda b: b + CANARY.encode()),
)


@given(st.sampled_from([*FIELDS, "patient", "path"]), values, canaries)
@example("site", CANARY, CANARY)
def test_no_canary_passes_through_any_field_or_event(field: str, value: object, event: str) -> None:
    text = written(lambda: Log("client.intake").warning(event, **{field: value}))
    assert "Canary" not in text
    assert "Maria" not in text


@given(canaries, values)
def test_no_canary_passes_through_a_foreign_logger(message: str, argument: object) -> None:
    def write() -> None:
        logging.getLogger("somebody.elses").error(
            "%s %r", message, argument, extra={"fields": {"site": message}}
        )

    text = written(write)
    assert "Canary" not in text
    assert json.loads(text)["event"] == "foreign"


def test_an_exception_goes_out_by_its_type_alone() -> None:
    def write() -> None:
        try:
            int(CANARY)
        except ValueError:
            logging.getLogger("consilium.client").exception("intake.failed")
            logging.getLogger("elsewhere").exception(CANARY)

    text = written(write)
    assert CANARY not in text
    assert [json.loads(line)["exception"] for line in text.splitlines()] == ["ValueError", "ValueError"]


def test_a_logger_that_pretends_to_be_ours_cannot_bring_fields_of_its_own_kind() -> None:
    """A name that only begins like ours is foreign."""
    text = written(lambda: logging.getLogger("consilium2").error(CANARY, extra={"fields": {"x": CANARY}}))
    assert CANARY not in text


def test_a_library_that_logs_under_our_name_without_fields_is_withheld() -> None:
    text = written(lambda: logging.getLogger("consilium.anything").error(CANARY))
    assert CANARY not in text


@given(st.sampled_from([*FIELDS, "patient"]), values, canaries)
def test_a_caller_who_goes_round_the_log_gets_no_further(field: str, value: object, event: str) -> None:
    extra = {"fields": {field: value}}
    assert CANARY not in written(lambda: logging.getLogger("consilium.client").error(event, extra=extra))


def test_a_good_line_is_whole_json_with_its_fields() -> None:
    text = written(lambda: Log("client.intake").info("intake.done", site="st-anna", files=12, seconds=1.5))
    line = json.loads(text)
    assert (line["event"], line["site"], line["files"], line["seconds"]) == (
        "intake.done",
        "st-anna",
        12,
        1.5,
    )
    assert line["room"] == "consilium.client.intake"


def test_a_refused_field_is_seen_and_harmless() -> None:
    text = written(lambda: Log("client").info("x.y", site="St Anna's", patient="M"))
    line = json.loads(text)
    assert line["site"] == REFUSED
    assert (line["count"], line["code"]) == (1, "unknown-field")
    assert "patient" not in line


@pytest.mark.parametrize("value", [True, "12", None, [1], 1j, float("nan"), float("inf")])
def test_a_number_field_takes_numbers_only(value: object) -> None:
    assert not allowed("files", value)


@pytest.mark.parametrize("value", ["Upper", "two words", "", "x" * 81, 3, "ü", "word\n"])
def test_a_word_field_takes_short_lower_case_words_only(value: object) -> None:
    assert not allowed("site", value)


SPEAKING = """
import logging, sys, warnings
from {room}.cli import main
sys.argv = ["program", "--help"]
try:
    main()
except SystemExit:
    pass
warnings.warn("Invalid value for VR PN: 'Canary^Maria'")
logging.getLogger("pydicom").warning("Canary^Maria")
logging.getLogger("consilium.client").error("Canary^Maria")
"""


@pytest.mark.parametrize("room", ["client", "server"])
def test_every_command_line_speaks_through_the_safe_formatter(room: str) -> None:
    """The formatter protects nobody as long as no program uses it."""
    done = subprocess.run(
        [sys.executable, "-c", SPEAKING.format(room=room)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Canary" not in done.stderr
    assert done.stderr.count('"event": "foreign"') == 3


def test_other_libraries_stay_quiet_below_a_warning() -> None:
    assert written(lambda: logging.getLogger("pydicom").info(CANARY)) == ""
