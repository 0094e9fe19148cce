"""What lies in deploy/, read as the programs it is for would read it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).with_name("schemas")
SIDES = ("server", "site")
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def compose(name: str) -> dict:
    """One compose file, anchors and merges resolved."""
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def services() -> list[tuple[str, str, dict]]:
    """(side, name, settings) of every service."""
    return [(s, n, v) for s in SIDES for n, v in compose(f"{s}/compose.yaml")["services"].items()]


def variables(side: str) -> dict[str, str]:
    """`.env.example` of one side."""
    lines = (DEPLOY / side / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def instructions(side: str) -> list[tuple[str, str]]:
    """(keyword, rest) of every instruction of one Dockerfile."""
    text = (DEPLOY / side / "Dockerfile").read_text(encoding="utf-8")
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def unit(path: Path) -> dict[str, list[str]]:
    """Key to its values, in order, of one unit, whatever their section."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def command_lines() -> list[tuple[str, list[str]]]:
    """(where, words) of every command of ours that a container or a unit runs."""
    lines = []
    for side in SIDES:
        program = f"consilium-{side}"
        for name, settings in compose(f"{side}/compose.yaml")["services"].items():
            lines.append((f"{side} {name}", [program, *settings["command"]]))
            lines.append((f"{side} {name} health", settings["healthcheck"]["test"][1:]))
        for keyword, rest in instructions(side):
            if keyword == "CMD":
                lines.append((f"{side} image", [program, *json.loads(rest)]))
            if keyword == "HEALTHCHECK":
                lines.append((f"{side} image health", json.loads(rest.partition(" CMD ")[2])))
    for path in UNITS:
        words = unit(path)["ExecStart"][0].split()
        lines.append((path.name, [Path(words[0]).name, *words[1:]]))
    return lines
