"""Whether the parts of Flower that we reach into are as they were when we did.

They promise nothing: who depends on one names it with the SHA-256 of its source, and looks before it starts. A developer who
reads a name here reads that function anew, and then brings the digest up to date.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

from common.errors import SettingsError

FLOWER: Final = "1.41.0"
Parts = Mapping[tuple[str, str], str]
"""Module and name (with dots for what is inside a class) to the SHA-256 of its source."""

SHORTWAY: Final[Parts] = MappingProxyType(
    {
        # What a request goes through on Flower's long way, and who may ask: `common.shortway` does the same.
        (
            "flwr.supercore.protobuf.translation",
            "ProtobufTranslationMiddleware",
        ): "5ff23a6fdd06d0f99db4c972721307fb8523778ca380a8e6e9427562e571fd0f",
        (
            "flwr.supercore.protobuf.routing",
            "ProtobufRoute",
        ): "c120a41bd5d5123575d6261fbfd0874fcc970a1fc4728e2e6dfa35587e743f7d",
        (
            "flwr.supercore.error.http",
            "http_error_translator",
        ): "63e39a121204a42b9a1c76f5089e1ca74811750906cc4b017c902038609bfe4d",
        (
            "flwr.supercore.dependencies.task",
            "authenticate_task",
        ): "7b4c0c58ea91353a9075df3af90acc2e5139cfa8f0ae9772651fbafecf25cc38",
        (
            "flwr.supercore.dependencies.superexec",
            "authenticate_superexec_request",
        ): "25520d5ab7206484b5f1d4e34aa1a6e1e09f3ab444e9656af4e84a32809b2e02",
        (
            "flwr.supercore.dependencies.version",
            "VersionDependency",
        ): "e028ba91776f3f9a7b64c920633f3d5066bca7984f67f9804b4c0c9dc210df8b",
        (
            "flwr.supercore.routers.runtime.router",
            "create_runtime_router",
        ): "304f992bd83b25e087a5f75e98def6ec0ab5bd132916a09f9793bb0fc896ca7f",
        (
            "flwr.supercore.routers.runtime.router",
            "acquire_task",
        ): "dd75481efa7c4a7ca358ac3fb6f6ff82b741ca90eef054a63ca0b9bc4c09f372",
        (
            "flwr.supercore.routers.runtime.router",
            "pull_object",
        ): "fa0eb2697dd47c3631ac49c384398f7a594a9f0227fbdd4f0929888751ff46c9",
        (
            "flwr.supercore.routers.runtime.router",
            "push_object",
        ): "cea29ed48616b5b50d634efcfec918a104e894678d95e26321a9b829062eb819",
        (
            "flwr.supercore.routers.runtime.router",
            "pull_messages",
        ): "ef2d4efa53226888adee8ccdf12dfd7625a97e4425e170d229eceeb25cf8615e",
        (
            "flwr.supercore.routers.runtime.router",
            "push_messages",
        ): "195c0dab8d020cdc62d21397b65167b8913b487b59bf9726185b8468a9e837a8",
        (
            "flwr.supercore.routers.runtime.tracing",
            "RuntimeTracingMiddleware",
        ): "4f574b47f7f33cd83e176c1d0e27f990b01795c191da6293effc46934fb29705",
    }
)


def changed(parts: Parts) -> list[str]:
    """What of these parts is not as it was when this was written; empty when all is."""
    found = [] if version("flwr") == FLOWER else [f"flwr {version('flwr')} is not {FLOWER}"]
    for (module, name), digest in parts.items():
        try:
            part: Any = importlib.import_module(module)
            for step in name.split("."):
                part = getattr(part, step)
        except (ImportError, AttributeError):
            found.append(f"{module}.{name} is gone")
            continue
        if source_digest(part) != digest:
            found.append(f"{module}.{name} has changed")
    return found


def require(parts: Parts, who: str) -> None:
    """Refuse to work beside a Flower where one of these parts is another.

    Raises:
        SettingsError: code `flower-moved`, naming the parts that `who` depends on and that are not as they were.
    """
    found = changed(parts)
    if found:
        raise SettingsError(
            "Flower",
            f"parts of it that the {who} depends on are not as they were: {'; '.join(found)}",
            f"Install the release as it is: it needs flwr {FLOWER} exactly",
            code="flower-moved",
        )


def source_digest(part: Any) -> str:
    """SHA-256 of a function's or class's source text; empty where it has none."""
    try:
        return hashlib.sha256(inspect.getsource(part).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
