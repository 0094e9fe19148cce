"""An MLflow tracking server, by its REST API 2.0 (https://mlflow.org/docs/latest/api_reference/rest-api.html).

Spoken without MLflow's own client, which brings some twenty packages and counts its users. Only the configured server
is asked, through no proxy; where it sends us elsewhere, we do not go.

One experiment for the federation, one run for each study, found again by its tags. Which round was told last is one of
them, so that a round is told once, and what was missed while the server was away is told later. Whoever is killed in
the middle tells a round again with the same time, which MLflow keeps once.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

import httpx

from common.errors import FederationError, SettingsError
from server.tracking.figures import Step, Story

_API: Final = "api/2.0/mlflow/"
_TIMEOUT_S: Final = 10.0
_MOST: Final = 1000
"""Metrics that MLflow takes in one request."""
_RUN: Final = "consilium.run"
_TOLD: Final = "consilium.told"
_SUBSET: Final = "consilium.subset"
_STATES: Final = {"running": "RUNNING", "completed": "FINISHED"}
"""MLflow's words for ours; any other ended early: FAILED."""


class Mlflow:
    """The tracking server at `uri`.

    Args:
        uri: of `tracking.mlflow`.
        experiment: its name; made when it is not there.
        secret: file with the value of the Authorization header; None: none is sent.

    Raises:
        SettingsError: the file cannot be read, or others may read it.
    """

    def __init__(self, uri: str, experiment: str, secret: Path | None = None) -> None:
        headers = {} if secret is None else {"Authorization": _secret(secret)}
        self._experiment = experiment
        self._id = ""
        self._client = httpx.Client(
            base_url=uri.rstrip("/") + "/" + _API,
            headers=headers,
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=ssl.create_default_context(),
        )

    def tell(self, told: Story) -> None:
        """Send what is new.

        Raises:
            FederationError: code `mlflow` when the server does not answer, or not as MLflow does.
        """
        run, tags = self._run(told)
        known = int(tags.get(_TOLD, "0"))
        for step in told.steps:
            number = step.round + step.final
            if number > known:
                self._tell(run, step, number)
        self._close(run, told, tags)

    def _tell(self, run: str, step: Step, number: int) -> None:
        at = int(step.at * 1000)
        metrics = [
            {"key": key, "value": value, "timestamp": at, "step": step.round}
            for key, value in step.values.items()
        ]
        for first in range(0, len(metrics), _MOST):
            self._ask("runs/log-batch", {"run_id": run, "metrics": metrics[first : first + _MOST]})
        # Last, in a request of its own: what is not told yet must not count as told.
        tags = {_TOLD: str(number), _SUBSET: str(step.subset).lower()}
        self._ask("runs/log-batch", {"run_id": run, "tags": _pairs(tags)})

    def _run(self, told: Story) -> tuple[str, dict[str, str]]:
        """The run of this study, made when it is not there, and its tags."""
        wanted = {"experiment_ids": [self._found()], "filter": f"tags.`{_RUN}` = '{told.run}'"}
        found = self._ask("runs/search", {**wanted, "max_results": 1}).get("runs", [])
        if found:
            run = found[0]
            return str(run["info"]["run_id"]), {t["key"]: t["value"] for t in run["data"].get("tags", [])}
        at = int(min((step.at for step in told.steps), default=0.0) * 1000)
        tags = {_RUN: told.run, "consilium.study": told.study}
        values = {"experiment_id": self._found(), "run_name": told.study, "start_time": at}
        made = self._ask("runs/create", {**values, "tags": _pairs(tags)})
        run_id = str(made["run"]["info"]["run_id"])
        self._ask("runs/log-batch", {"run_id": run_id, "params": _pairs(told.facts)})
        return run_id, {}

    def _close(self, run: str, told: Story, tags: dict[str, str]) -> None:
        """How the study stands; a result on fewer sites says so in its name."""
        state = f"{told.status}, subset" if told.subset else told.status
        if tags.get("consilium.state") == state:
            return
        name = f"{told.study} (subset)" if told.subset else told.study
        values: dict[str, Any] = {
            "run_id": run,
            "run_name": name,
            "status": _STATES.get(told.status, "FAILED"),
        }
        if told.status != "running":
            values["end_time"] = int(max((step.at for step in told.steps), default=0.0) * 1000)
        self._ask("runs/update", values)
        self._ask("runs/log-batch", {"run_id": run, "tags": _pairs({"consilium.state": state})})

    def _found(self) -> str:
        if not self._id:
            query = {"experiment_name": self._experiment}
            answer = self._sent("GET", "experiments/get-by-name", params=query)
            if answer.status_code == httpx.codes.NOT_FOUND:
                self._id = str(self._ask("experiments/create", {"name": self._experiment})["experiment_id"])
            else:
                self._id = str(_values(answer)["experiment"]["experiment_id"])
        return self._id

    def _ask(self, path: str, values: dict[str, Any]) -> dict[str, Any]:
        return _values(self._sent("POST", path, json=values))

    def _sent(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **how)
        except httpx.HTTPError:
            raise _refused("it does not answer") from None


def _values(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != httpx.codes.OK:
        raise _refused(f"it answers with status {answer.status_code}")
    try:
        found = answer.json()
    except ValueError:
        raise _refused("its answer is not JSON") from None
    return found if isinstance(found, dict) else {}


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _refused(rule: str) -> FederationError:
    remedy = "Look at the MLflow server and at [tracking] in server.toml; what was missed is told later"
    return FederationError("tracking.mlflow", rule, remedy, code="mlflow")


def _secret(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise SettingsError(
                path.name, "others than its owner may read it", f"chmod 600 {path.name}", code="key-rights"
            )
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        raise SettingsError(
            "tracking.mlflow_secret_file", "the file it names is not there", "Make it", code="key-missing"
        ) from None
