"""The error tree is what its drawing says, and errors survive every border whole."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from common import errors
from common.errors import ConsiliumError, PlanError, Problem

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ConsiliumError)
}
LINE = re.compile(r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>[A-Z]\w+)\b(?P<rest>.*)$")


def drawn_tree() -> dict[str, tuple[str | None, int | None]]:
    """Name to (parent, exit status or None) as the module's docstring draws them."""
    tree: dict[str, tuple[str | None, int | None]] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := LINE.match(line):
            depth = len(found["branch"]) // 4
            del ancestors[depth:]
            status = re.search(r"exit (\d+)$", found["rest"])
            tree[found["name"]] = (ancestors[-1] if ancestors else None, int(status[1]) if status else None)
            ancestors.append(found["name"])
    return tree


def make(kind: type[ConsiliumError]) -> ConsiliumError:
    if issubclass(kind, PlanError):
        return PlanError("plan.toml", [Problem("task.kind", "must be known", "Choose one")])
    return kind("site.toml", "the rule was broken", "Mend it", code="a-code")


def test_the_drawing_names_every_class_under_its_parent() -> None:
    drawn = {name: parent for name, (parent, _) in drawn_tree().items()}
    real = {
        name: (kind.__bases__[0].__name__ if kind is not ConsiliumError else None)
        for name, kind in CLASSES.items()
    }
    assert drawn == real


def test_the_drawn_exit_statuses_are_the_real_ones() -> None:
    for name, (_, status) in drawn_tree().items():
        if status is not None:
            assert CLASSES[name].exit_status == status, name


def test_every_leaf_has_a_code_of_its_own() -> None:
    codes = [kind.default_code for kind in CLASSES.values()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_error_keeps_everything_across_a_process_border(name: str) -> None:
    error = make(CLASSES[name])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_text_names_subject_rule_and_remedy(name: str) -> None:
    error = make(CLASSES[name])
    assert error.subject in str(error)
    assert error.rule in str(error)
    assert error.remedy in str(error)


def test_a_plan_error_shows_every_problem_in_its_text() -> None:
    problems = [Problem(f"section.key{i}", f"rule {i}", f"remedy {i}") for i in range(3)]
    text = str(PlanError("plan.toml", problems))
    assert all(str(problem) in text for problem in problems)
    assert "3 mistakes" in text


def test_no_exit_status_is_that_of_success_or_of_a_shell() -> None:
    assert all(0 < kind.exit_status < 126 for kind in CLASSES.values())
