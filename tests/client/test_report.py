"""The hospital's own report: its cases and maps, what was spent, and that it says where it stays."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from client.policy import Policy
from client.privacy.ledger import Ledger
from client.report import build, gradcam, write_site_report
from client.report.compose import Shown, choose
from client.report.data import LedgerState, ScoredCase
from client.report.page import site_html
from client.report.pictures import grey, overlay
from client.site import load_site
from common.errors import DataError
from common.models import build as build_net
from common.plan import Model
from tests.client.made import fill, made_plan, made_site
from tests.client.site_report_data import site_data

NETWORKS = ("small-cnn", "scatter", "densenet121", "resnet18", "resnet50", "efficientnet-b0", "vit")
HOSTILE = '"><script>alert(1)</script>'


def images(n: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_every_network_has_maps_also_when_nothing_may_learn(name, trainable):
    net = build_net(Model(name, trainable), 1, (64, 64))
    for parameter in net.parameters():
        parameter.requires_grad_(trainable == "all" and parameter.requires_grad)
    maps = gradcam(net, images())
    assert maps.shape == (2, 64, 64)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert all(m.max() == pytest.approx(1) or not m.any() for m in maps)


def test_the_map_is_where_the_evidence_is():
    """A network that sees one corner only gets its map there."""

    class Corner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def features(self, x):
            return torch.nn.functional.avg_pool2d(x, 8) * self.scale

        def classify(self, features):
            return features[:, :, :2, :2].mean(dim=(1, 2, 3))[:, None]

    x = torch.zeros(1, 1, 64, 64)
    x[:, :, :16, :16] = 1
    heat = gradcam(Corner(), x)[0]
    assert heat[4, 4] == pytest.approx(1)
    assert heat[32:, 32:].max() == 0


def test_looking_changes_nothing():
    """Mode, gradients and weights are as they were."""
    net = build_net(Model("small-cnn"), 1, (64, 64))
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        gradcam(net, images())
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_wrong_shape_and_wrong_output_are_named():
    net = build_net(Model("small-cnn"), 1, (64, 64))
    with pytest.raises(DataError, match="n, 1, rows, columns"):
        gradcam(net, images()[:, 0])
    with pytest.raises(DataError, match="Count from 0"):
        gradcam(net, images(), output=1)


def case(name: str, score: float, *, truth: bool) -> ScoredCase:
    return ScoredCase(name, score, truth, "PA", "Aster")


def test_the_most_confident_come_first_and_a_patient_once():
    cases = [
        case("a", 0.9, truth=True),
        case("a", 0.95, truth=True),
        case("b", 0.7, truth=True),
        case("c", 0.1, truth=False),
        case("d", 0.05, truth=True),
        case("e", 0.8, truth=False),
    ]
    assert choose(cases, 0.5, hit=True, most=4) == [1, 2]
    assert choose(cases, 0.5, hit=False, most=4) == [4, 5]
    assert choose(cases, 0.5, hit=False, most=1) == [4]


def test_pictures_keep_their_size_and_blank_ones_do_not_divide_by_zero():
    blank = np.zeros((32, 32), dtype=np.float32)
    assert not grey(blank).any()
    heat = np.zeros_like(blank)
    heat[0, 0] = 1
    painted = overlay(blank, heat)
    assert painted.shape == (32, 32, 3)
    assert painted[0, 0, 0] > 150
    assert not painted[1:].any()


@pytest.fixture(scope="module")
def page() -> str:
    return site_html(site_data())


def test_it_says_where_it_stays(page):
    assert page.count("Stays in the hospital") >= 2


def test_nothing_is_fetched_and_images_are_inside(page):
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", page)
    assert "default-src 'none'" in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 16
    assert Image.open(io.BytesIO(base64.b64decode(pictures[1]))).size == (96, 96)


def test_a_subset_is_said_here_too(page):
    """Law 9: wherever the result is shown."""
    assert "Subset" not in page
    assert "Subset: trained on fewer hospitals" in site_html(replace(site_data(), subset=True))


def test_a_hostile_name_stays_text():
    data = site_data(site=HOSTILE)
    data = replace(data, scores=(replace(data.scores[0], pseudonym=HOSTILE, manufacturer=HOSTILE),))
    assert "<script" not in site_html(data)


def test_a_released_model_without_privacy_is_infinite_spend():
    data = replace(site_data(), ledger=LedgerState(float("inf"), 1e-5, 8.0, 16.0))
    assert "Infinite" in site_html(data)


def test_an_unreadable_ledger_is_named_not_hidden():
    data = replace(site_data(), ledger=LedgerState(None, 1e-5, 8.0, 16.0, problem="ledger-missing"))
    assert "ledger-missing" in site_html(data)


def test_no_hit_and_no_miss_are_said():
    text = site_html(replace(site_data(), cases=()))
    assert "There is no hit" in text
    assert "There is no miss" in text


def test_from_a_site_to_its_report(tmp_path):
    """Real index, real store, real network: noise images, so the model is bad and misses exist."""
    site = made_site(tmp_path / "site")
    fill(
        site,
        patients=40,
        images=2,
        manufacturer="Aster",
        model="DR-1",
        projection="PA",
        quality={"noise": 0.02},
    )
    plan = made_plan()
    net = build_net(plan.model, 1, (16, 16))
    data = build(site, plan, net, Shown("alone", 0.5))
    assert data.ledger.problem == "ledger-missing"
    assert data.metrics.model == "alone"
    assert len({c.pseudonym for c in data.scores}) == 12
    assert data.cases
    assert {c.hit for c in data.cases} <= {True, False}
    assert data.quality[0].by_scanner.keys() == {"Aster DR-1"}
    path = tmp_path / "report.html"
    write_site_report(data, path)
    text = html.unescape(path.read_text(encoding="utf-8"))
    assert data.scores[0].pseudonym in text


def test_an_open_ledger_is_asked_not_locked_out(tmp_path):
    """The site service holds the ledger while the report is made."""
    site = made_site(tmp_path / "site")
    fill(site, patients=20)
    plan = made_plan()
    net = build_net(plan.model, 1, (16, 16))
    with Ledger.create(site.ledger) as ledger:
        assert build(site, plan, net, ledger=ledger).ledger.epsilon == 0.0
        assert build(site, plan, net).ledger.problem == "ledger-locked"
    assert build(load_site(site.folder), plan, net).ledger.lifetime_limit == Policy().max_epsilon_lifetime
