"""Fit and measure the check of a chest's pose: `python -m simulations.benchmarks.pose fit|measure FOLDER`.

FOLDER holds `labels.csv` (path, patient_id, site) and the images it names. Patients whose number hashes
to an even digest fit the template, the others measure it; phantoms join both halves. Sites count alike
in the fit, however many images they have.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image
from scipy.optimize import minimize
from scipy.stats import beta

from client.quality_pose import CELLS, cells, problem_of, ways
from client.quality_pose import Pose as FoundPose
from simulations.phantoms import Projection, draw_patient, draw_pose, render
from simulations.scanners import SCANNERS, apply, draw

PENALTY: Final = 1e-3
PHANTOMS: Final = 400
SEED: Final = 5
MARGIN: Final = 3.0
MARGIN_BOTH: Final = 6.0
LEAST: Final = 2.5
"""Chosen for few false alarms: 95% of white noise fits worse; of real chests hardly any does."""
FOUND: Final = ("sideways, left", "upside down", "sideways, right", "negative", "negative and turned")

app = typer.Typer(pretty_exceptions_show_locals=False)


@dataclass(frozen=True)
class Chests:
    """Images as cells, with the set each belongs to and whether its patient is in the fitting half."""

    cells: npt.NDArray[np.float32]
    sets: npt.NDArray[np.str_]
    fitting: npt.NDArray[np.bool_]


def load(folder: Path) -> Chests:
    """The images of a folder, and phantoms of every scanner."""
    found = [*_pictures(folder), *_phantoms()]
    return Chests(
        np.stack([cells(image) for image, _, _ in found]),
        np.array([name for _, name, _ in found]),
        np.array([fitting for _, _, fitting in found]),
    )


def _pictures(folder: Path) -> Iterator[tuple[npt.NDArray[np.float32], str, bool]]:
    with (folder / "labels.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            image = np.asarray(Image.open(folder / row["path"]).convert("L"), dtype=np.float32)
            yield image, row["site"], hashlib.sha256(row["patient_id"].encode()).digest()[0] % 2 == 0


def _phantoms() -> Iterator[tuple[npt.NDArray[np.float32], str, bool]]:
    rng = np.random.default_rng(SEED)
    scanners = list(SCANNERS.values())
    for number in range(PHANTOMS):
        patient = draw_patient(rng, positive=bool(number // 4 % 2))
        view: Projection = "PA" if number % 8 < 4 else "AP"
        anatomy = render(patient, view, 256, draw_pose(rng, view))
        settings = draw(rng, scanners[number % len(scanners)])
        yield apply(anatomy, settings).astype(np.float32), "phantoms", number // 8 % 2 == 0


def fit(chests: Chests) -> npt.NDArray[np.float32]:
    """Weights [16, 16] by which upright fits better than the seven other ways: multinomial logistic regression."""
    undone = np.stack([np.rot90(chests.cells, -turn, (1, 2)) for turn in range(4)], axis=1)
    both = np.concatenate([undone, -undone], axis=1).reshape(len(undone), 8, -1)
    counts = {name: int((chests.sets == name).sum()) for name in np.unique(chests.sets)}
    weight = np.array([1 / np.sqrt(counts[name]) for name in chests.sets])
    weight /= weight.sum()

    def loss(weights: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """Mean log loss with its penalty, and its slope."""
        scores = both @ weights
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        share = shifted / shifted.sum(axis=1, keepdims=True)
        wanted = both[:, 0] - np.einsum("nw,nwf->nf", share, both)
        value = -float(weight @ np.log(share[:, 0])) + PENALTY / 2 * float(weights @ weights)
        return value, PENALTY * weights - weight @ wanted

    made = minimize(loss, np.zeros(CELLS * CELLS), jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return np.asarray(made.x, dtype=np.float32).reshape(CELLS, CELLS)


def interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval of a share."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def stopped(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which images, by their fits [n, 8], a person would be asked about."""
    best = scores.argmax(axis=1)
    poses = [
        FoundPose(int(way) % 4, bool(way >= 4), float(row[way] - row[0]), float(row[way]))
        for way, row in zip(best, scores, strict=True)
    ]
    return np.array([problem_of(one) is not None for one in poses])


def table(chests: Chests) -> list[list[str]]:
    """False alarms and what is found, by data set, on the half that did not fit; with 95% intervals."""
    measuring = ~chests.fitting
    return [_line(name, chests.cells[(chests.sets == name) & measuring]) for name in sorted(set(chests.sets))]


def left_out(chests: Chests) -> list[list[str]]:
    """The same for every image of each hospital, by a template fitted on the other hospitals and the phantoms."""
    lines = []
    for hospital in sorted({name.partition("_")[0] for name in chests.sets} - {"phantoms"}):
        here = np.char.startswith(chests.sets, hospital)
        weights = fit(Chests(chests.cells[~here], chests.sets[~here], chests.fitting[~here]))
        lines += [
            _line(name, chests.cells[chests.sets == name], weights) for name in sorted(set(chests.sets[here]))
        ]
    return lines


def _line(
    name: str, some: npt.NDArray[np.float32], weights: npt.NDArray[np.float32] | None = None
) -> list[str]:
    turned = [np.rot90(some, turn, (1, 2)) for turn in range(4)]
    shown = [some, *turned[1:], -some]
    cases = [stopped(ways(one, weights)) for one in shown]
    cases.append(np.concatenate([stopped(ways(-one, weights)) for one in turned[1:]]))
    return [name, str(len(some)), *(_share(one) for one in cases)]


def _share(hits: npt.NDArray[np.bool_]) -> str:
    low, high = interval(int(hits.sum()), len(hits))
    return f"{100 * hits.mean():.2f}% ({100 * low:.1f}-{100 * high:.1f})"


@app.command("fit")
def fit_command(folder: Annotated[Path, typer.Argument()], out: Annotated[Path, typer.Argument()]) -> None:
    """Fit the template on the fitting half of FOLDER and write it to OUT."""
    chests = load(folder)
    half = Chests(chests.cells[chests.fitting], chests.sets[chests.fitting], chests.fitting[chests.fitting])
    out.write_text(_toml(fit(half)), encoding="utf-8")


def _toml(weights: npt.NDArray[np.float32]) -> str:
    rows = "\n".join("  [" + ", ".join(f"{value:.4f}" for value in row) + "]," for row in weights)
    return (
        "# The template of client.quality_pose. Made by\n"
        "#   python -m simulations.benchmarks.pose fit FOLDER client/quality_pose.toml\n"
        "# from the fitting half of 7,099 chest radiographs of three hospitals and of 400 phantoms.\n"
        f"margin = {MARGIN}\nmargin_both = {MARGIN_BOTH}\nleast = {LEAST}\nweights = [\n{rows}\n]\n"
    )


@app.command()
def measure(
    folder: Annotated[Path, typer.Argument()],
    *,
    others: Annotated[bool, typer.Option("--others", help="Fit on the other hospitals instead.")] = False,
) -> None:
    """Print how often the check errs on FOLDER, as a Markdown table: on the half that did not fit it, or --others."""
    chests = load(folder)
    head = ["set", "images", "false alarms", *FOUND]
    lines = [head, ["---"] * len(head), *(left_out(chests) if others else table(chests))]
    typer.echo("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    app()
