"""Dockerfiles, read instruction by instruction; no engine is needed to see what they would build."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest

from tests.deploy.files import DEPLOY, ROOT, SIDES, instructions

COPIED = {
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
    "common",
    "client",
    "server",
    "simulations",
    "deploy/install.sh",
}
BUILD_TOOLS = {
    "gcc",
    "g++",
    "make",
    "build-essential",
    "python3-pip",
    "python3-venv",
    "git",
    "curl",
    "wget",
    "cmake",
}


def stages(side: str) -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for keyword, rest in instructions(side):
        if keyword == "FROM":
            found.append([])
        if found:
            found[-1].append((keyword, rest))
    return found


def packages(rest: str) -> set[str]:
    """What one RUN has apt install."""
    found: set[str] = set()
    for part in rest.split("&&"):
        words = shlex.split(part)
        if words[:2] == ["apt-get", "install"]:
            assert "--no-install-recommends" in words
            assert "--yes" in words
            found |= {word for word in words[2:] if not word.startswith("-")}
    return found


@pytest.mark.parametrize("side", SIDES)
class TestDockerfile:
    def test_its_base_is_one_pinned_version(self, side: str) -> None:
        (base,) = [
            rest for keyword, rest in instructions(side) if keyword == "ARG" and rest.startswith("BASE=")
        ]
        assert re.fullmatch(r"BASE=debian:\d+\.\d+-slim", base)
        froms = [rest for keyword, rest in instructions(side) if keyword == "FROM"]
        assert froms == ["${BASE} AS build", "${BASE}"]

    def test_nothing_is_fetched_from_an_address_and_nothing_added(self, side: str) -> None:
        keywords = {keyword for keyword, _ in instructions(side)}
        assert keywords <= {
            "ARG",
            "FROM",
            "RUN",
            "WORKDIR",
            "COPY",
            "ENV",
            "USER",
            "VOLUME",
            "EXPOSE",
            "STOPSIGNAL",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
        }
        assert not [
            rest
            for keyword, rest in instructions(side)
            if keyword == "RUN" and re.search(r"curl|wget|https?://", rest)
        ]

    def test_the_last_stage_has_no_build_tools_and_ends_as_nobody(self, side: str) -> None:
        last = stages(side)[-1]
        installed = set().union(*(packages(rest) for keyword, rest in last if keyword == "RUN"))
        assert installed == {"python3", "nginx" if side == "server" else "stunnel4"}
        assert not installed & BUILD_TOOLS
        users = [rest for keyword, rest in last if keyword == "USER"]
        assert users == ["10001:10001"]
        runs = [i for i, (keyword, _) in enumerate(last) if keyword == "RUN"]
        assert max(runs) < next(i for i, (keyword, _) in enumerate(last) if keyword == "USER")
        assert [rest for keyword, rest in last if keyword == "COPY"] == [
            "--from=build /opt/consilium /opt/consilium"
        ]

    def test_lists_of_packages_are_not_kept(self, side: str) -> None:
        for keyword, rest in instructions(side):
            if keyword == "RUN" and "apt-get" in rest:
                assert "rm -rf /var/lib/apt/lists/*" in rest

    def test_it_copies_what_it_needs_and_nothing_else(self, side: str) -> None:
        first = [rest for keyword, rest in stages(side)[0] if keyword == "COPY"]
        taken = {word for rest in first for word in rest.split()[:-1]}
        assert taken == COPIED
        assert all((ROOT / name).exists() for name in taken)
        ignore = (DEPLOY / side / "Dockerfile.dockerignore").read_text().splitlines()
        rules = [line for line in ignore if line and not line.startswith("#")]
        assert rules[0] == "*"
        assert {rule[1:] for rule in rules if rule.startswith("!")} == COPIED

    def test_it_installs_pinned_and_takes_the_variant(self, side: str) -> None:
        runs = [rest for keyword, rest in stages(side)[0] if keyword == "RUN"]
        assert 'sh deploy/install.sh /opt/consilium "${VARIANT}"' in runs
        assert ("ARG", "VARIANT=cpu") in stages(side)[0]

    def test_words_that_start_it_are_lists(self, side: str) -> None:
        """A shell in between would swallow the signal that asks for an orderly end."""
        for keyword, rest in instructions(side):
            if keyword in ("ENTRYPOINT", "CMD"):
                assert isinstance(json.loads(rest), list)


class TestInstaller:
    SCRIPT = DEPLOY / "install.sh"
    TEXT = SCRIPT.read_text(encoding="utf-8")

    def test_every_installation_is_held_to_the_constraints(self) -> None:
        lines = [line for line in self.TEXT.splitlines() if line.strip().startswith("pip install")]
        assert len(lines) == 3
        assert all('-c "$constraints"' in line for line in lines)

    def test_an_unknown_variant_is_refused_by_name(self, tmp_path) -> None:
        command = ["sh", str(self.SCRIPT), str(tmp_path / "here"), "gpu"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "cpu, cuda or offline" in done.stderr
        assert not (tmp_path / "here").exists()

    def test_both_accounts_of_the_hospital_are_made(self) -> None:
        text = (DEPLOY / "site" / "Dockerfile").read_text()
        for number, name in ((10001, "consilium"), (10002, "consilium-courier")):
            assert re.search(
                rf"useradd --uid {number} .* {name}$|useradd --uid {number} .* {name} \\", text, re.MULTILINE
            )
