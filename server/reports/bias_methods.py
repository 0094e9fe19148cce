"""The methods paragraph of the bias chapter, written from the plan and the records, with its sources.

Only what the run did is said, and only what is said is cited. A word of the plan that stands in no table here is named
without a source, so that a new method is never given another's.
"""

from __future__ import annotations

from typing import Final

from common.plan import Plan
from server.records import RunRecord
from server.records_bias import Bias
from server.reports import select

_STRATEGIES: Final = {
    "fedavg": ("federated averaging", "McMahan et al., Communication-efficient learning of deep networks from decentralized data, AISTATS 2017"),
    "fedprox": ("FedProx", "Li et al., Federated optimization in heterogeneous networks, MLSys 2020"),
    "fedadam": ("FedAdam", "Reddi et al., Adaptive federated optimization, ICLR 2021"),
    "fedyogi": ("FedYogi", "Reddi et al., Adaptive federated optimization, ICLR 2021"),
    "scaffold": ("SCAFFOLD", "Karimireddy et al., SCAFFOLD: stochastic controlled averaging for federated learning, ICML 2020"),
    "q-ffl": ("q-fair federated learning", "Li et al., Fair resource allocation in federated learning, ICLR 2020"),
    "agnostic": ("agnostic federated learning", "Mohri et al., Agnostic federated learning, ICML 2019"),
}  # fmt: skip
_NETWORKS: Final = {
    "scatter": ("a fixed wavelet front end with a trained head", "Tramèr and Boneh, Differentially private learning needs better features (or much more data), ICLR 2021"),
    "densenet121": ("DenseNet-121", "Huang et al., Densely connected convolutional networks, CVPR 2017"),
    "resnet18": ("ResNet-18", "He et al., Deep residual learning for image recognition, CVPR 2016"),
    "resnet50": ("ResNet-50", "He et al., Deep residual learning for image recognition, CVPR 2016"),
    "efficientnet-b0": ("EfficientNet-B0", "Tan and Le, EfficientNet, ICML 2019"),
    "vit": ("a vision transformer", "Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021"),
}  # fmt: skip
_PERSONAL: Final = {
    "finetune": ("fine-tuned at each hospital", ""),
    "ditto": ("personalised by Ditto", "Li et al., Ditto: fair and robust federated learning through personalization, ICML 2021"),
    "local-affine": ("personalised by local normalisation", "Li et al., FedBN: federated learning on non-IID features via local batch normalization, ICLR 2021"),
    "calibrate": ("calibrated at each hospital", "Platt, Probabilistic outputs for support vector machines, 1999"),
}  # fmt: skip
_INPUTS: Final = {
    "histogram": ("each image brought to a standard histogram", "Nyúl, Udupa and Zhang, New variants of a method of MRI scale standardization, IEEE TMI 2000"),
    "amplitude": ("each image brought to a standard amplitude spectrum", "Jiang et al., HarmoFL, AAAI 2022"),
}  # fmt: skip
_DELONG: Final = "DeLong et al., Comparing the areas under two or more correlated ROC curves, Biometrics 1988; for clusters Obuchowski, Biometrics 1997"
_PERMUTED: Final = (
    "Phipson and Smyth, Permutation p-values should never be zero, Stat Appl Genet Mol Biol 2010"
)
_HOLM: Final = "Holm, A simple sequentially rejective multiple test procedure, Scand J Stat 1979"
_BERGER: Final = "Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 1982"
_GRADCAM: Final = "Selvaraju et al., Grad-CAM, ICCV 2017; why no alarm hangs on it: Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018"
_DPSGD: Final = "Abadi et al., Deep learning with differential privacy, CCS 2016"
_SECAGG: Final = (
    "Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning, CCS 2017"
)
_CONFOUNDED: Final = "Zech et al., Variable generalization performance of a deep learning model to detect pneumonia in chest radiographs, PLoS Med 2018"


class _Sources:
    """Numbers sources in the order of their first mention."""

    def __init__(self) -> None:
        self.listed: list[str] = []

    def cite(self, source: str) -> str:
        """` [3]`, or nothing where there is no source."""
        if not source:
            return ""
        if source not in self.listed:
            self.listed.append(source)
        return f" [{self.listed.index(source) + 1}]"


def methods(record: RunRecord, bias: Bias) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paragraphs, and the sources they cite by number."""
    sources = _Sources()
    plan = select.plan_of(record)
    paragraphs = [_training(plan, record, bias, sources)] if plan else []
    asked = {probe.probe for probe in bias.probes}
    paragraphs += [words for name, words in _questions(sources, asked, bias.alpha) if name in asked]
    if bias.findings is not None:
        paragraphs.append(
            f"Groups: each is compared with all others of its kind by the area under the ROC curve{sources.cite(_DELONG)} and by "
            "sensitivity and specificity at one shared threshold; levels change places between patients of equal truth at the same "
            f"hospital {bias.findings.permutations:,} times{sources.cite(_PERMUTED)}; p-values are Holm's{sources.cite(_HOLM)}."
        )
    return tuple(paragraphs), tuple(sources.listed)


def _training(plan: Plan, record: RunRecord, bias: Bias, sources: _Sources) -> str:
    network, paper = _NETWORKS.get(plan.model.name, (f"the network {plan.model.name}", ""))
    strategy, origin = _STRATEGIES.get(plan.federation.strategy, (plan.federation.strategy, ""))
    hospitals = len(select.sites(record)) - len(record.external)
    rows, columns = plan.input.shape[-2:]
    words = (
        f"Model: {network}{sources.cite(paper)} on images of {rows} × {columns}, trained by {hospitals} hospitals for "
        f"{plan.federation.rounds} rounds of {strategy}{sources.cite(origin)}"
    )
    if plan.input.normalisation in _INPUTS:
        done, source = _INPUTS[plan.input.normalisation]
        words += f", {done}{sources.cite(source)}"
    if plan.training.augmentation.scanner > 0:
        words += ", under random chains of what scanners do to an image"
    if bias.model.endswith("-dp"):
        words += f" with patient-level differential privacy of ε ≤ {plan.privacy.epsilon:g}, δ = {plan.privacy.delta:g}{sources.cite(_DPSGD)}"
    if plan.federation.aggregation == "secure":
        words += f", under secure aggregation{sources.cite(_SECAGG)}"
    method = plan.personalisation.method
    if method in _PERSONAL and any(name.startswith("personalised") for name in select.all_series(record)):
        done, source = _PERSONAL[method]
        words += f"; the personalised model is {done}{sources.cite(source)}"
    return f"{words}. Seed {record.seed}."


def _questions(sources: _Sources, asked: set[str], alpha: float) -> list[tuple[str, str]]:
    """Lazily cited: a probe that was not asked gives no source."""
    found = []
    if "swap" in asked:
        found.append((
            "swap",
            ("Other machines: virtual patients like those of each hospital are imaged on every machine. The AUROC on their own machines is "
            "compared with the mean over deals of the same machines without regard for the truth; its p-value is the share of 1,999 deals "
            f"that differ as much{sources.cite(_PERMUTED)}, after Holm over hospitals{sources.cite(_HOLM)}. That machines can tell who is ill is known "
            f"from practice{sources.cite(_CONFOUNDED)}."),
        ))  # fmt: skip
    if "dependence" in asked:
        found.append((
            "dependence",
            ("Score and truth: that the level tells who is ill among training patients, and that scores of test patients with equal truth are higher at "
            f"levels with more ill patients, must both be shown; the larger p-value counts{sources.cite(_BERGER)}."),
        ))  # fmt: skip
    if "occlusion" in asked:
        found.append((
            "occlusion",
            ("Hidden regions are replaced by their average over all images; the change of the AUROC is tested against a change of up to "
            f"0.02{sources.cite(_DELONG)}, after Holm over regions and hospitals{sources.cite(_HOLM)}."),
        ))  # fmt: skip
    if "decode" in asked:
        found.append((
            "decode",
            ("What can be read is balanced accuracy of ridge regression in four folds of patients, beside the same with levels dealt at random; "
            "it is described and not judged."),
        ))  # fmt: skip
    if "saliency" in asked:
        found.append(("saliency", f"Evidence is mapped by Grad-CAM{sources.cite(_GRADCAM)}."))
    found.append((
        "swap" if "swap" in asked else "occlusion",
        f"Each kind of question raises a false alarm in at most {alpha:.0%} of runs; measured rates are in docs/probes.md and docs/statistics.md.",
    ))  # fmt: skip
    return found
