"""Releases: the bundle is the installed code and the plan, and nothing of a parcel can be exchanged."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from typer.testing import CliRunner

from common import plan as plans
from common.code import code_digest, digest_of, sources
from common.errors import FederationError, InputError
from common.identity import Identity
from common.release import (
    APP,
    BUNDLE,
    DESCRIPTION,
    PLAN,
    Release,
    _signed,
    app_settings,
    bytes_digest,
    open_parcel,
    pack_parcel,
    release_of,
)
from server.cli import app
from server.federation_folder import Consortium
from server.release import app_folder, make_bundle, parcel_of, released
from server.site_rows import ReleaseRow
from tests.toy import toy_plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle():
    return make_bundle(toy_plan())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return Identity.make(tmp_path_factory.mktemp("keys") / "consortium.key")


@pytest.fixture(scope="module")
def parcel(bundle, server):
    return pack_parcel(
        release_of(toy_plan(), bundle, "2026-11-21T12:00:00+00:00", server), toy_plan(), bundle
    )


def _refused(blob, key):
    with pytest.raises(FederationError) as caught:
        open_parcel(blob, key)
    assert caught.value.code == "release"
    return caught.value.rule


def _parts(blob):
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _packed(parts):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_a_bundle_holds_exactly_the_installed_code_the_plan_and_the_app_s_settings(bundle):
    inside = _parts(bundle)
    assert set(inside) == {*sources(), PLAN, APP, ".info/CONTENT"}
    assert all(inside[path] == content for path, content in sources().items())
    assert plans.parse_plan(inside[PLAN].decode()) == toy_plan()


def test_the_same_code_and_plan_give_the_same_bytes_and_flower_makes_them_again(bundle, tmp_path):
    assert make_bundle(toy_plan()) == bundle
    assert build_fab_from_disk(app_folder(bundle, tmp_path / "consilium")) == bundle
    assert make_bundle(toy_plan(rounds=3)) != bundle


def test_the_settings_in_a_bundle_are_those_of_the_checkout():
    """`flwr run .` and a release run the same apps with the same names of settings."""
    checkout = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    made = app_settings()["tool"]["flwr"]["app"]
    for part in ("publisher", "components", "config"):
        assert made[part] == checkout[part]
    assert set(made["fab-include"]) == {*checkout["fab-include"], PLAN}


def test_the_digest_of_the_code_in_a_bundle_is_the_one_both_sides_compare(parcel, server):
    opened = open_parcel(parcel, server.public)
    assert opened.release.code_digest == code_digest() == digest_of(opened.code)
    assert opened.release.bundle_digest == bytes_digest(opened.bundle)
    assert opened.plan == toy_plan()
    assert opened.release.id.startswith("toy-1-")


def test_another_key_s_parcel_is_refused(parcel, tmp_path):
    assert "not signed" in _refused(parcel, Identity.make(tmp_path / "other.key").public)


@pytest.mark.parametrize("name", [BUNDLE, PLAN, DESCRIPTION])
def test_no_part_of_a_parcel_can_be_left_out_or_added(parcel, server, name):
    parts = _parts(parcel)
    _refused(_packed({**parts, "readme.txt": b"run me"}), server.public)
    parts.pop(name)
    _refused(_packed(parts), server.public)


@pytest.mark.parametrize("field", [n for n in Release.__dataclass_fields__ if n != "files"])
def test_nothing_that_is_said_of_a_bundle_can_be_changed(parcel, server, field):
    parts = _parts(parcel)
    said = json.loads(parts[DESCRIPTION])
    said[field] = said[field][:-1] + ("0" if said[field][-1] != "0" else "1")
    _refused(_packed({**parts, DESCRIPTION: json.dumps(said).encode()}), server.public)


def test_another_plan_beside_the_bundle_is_refused(parcel, server):
    other = plans.dump_plan(toy_plan(rounds=50)).encode()
    assert "plan" in _refused(_packed({**_parts(parcel), PLAN: other}), server.public)


def _with(bundle, **changes):
    return _packed({**_parts(bundle), **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"evil.py": b"print()"}, "no part"),
        ({"client/../../evil.py": b"print()"}, "no part"),
        ({APP: b'[tool.flwr.app.components]\nclientapp = "evil:app"\n'}, APP),
        ({PLAN: b""}, PLAN),
    ],
)
def test_even_the_consortium_cannot_sign_a_bundle_with_more_than_code_and_plan(bundle, server, changes, says):
    """A stolen server key does not let a bundle say which app Flower starts, nor bring files of its own."""
    other = _with(bundle, **changes)
    with pytest.raises(FederationError, match=says):
        release_of(toy_plan(), other, "2026", server)
    good = release_of(toy_plan(), bundle, "2026", server)
    signed = _resigned(replace(good, bundle_digest=bytes_digest(other)), server)
    assert says in _refused(pack_parcel(signed, toy_plan(), other), server.public)


def _resigned(release, identity):
    return replace(release, signature=identity.sign(_signed(release)))


def test_changed_code_under_an_unchanged_description_is_refused(bundle, server):
    other = _with(bundle, **{"client/app.py": b"import os\n"})
    good = release_of(toy_plan(), bundle, "2026", server)
    signed = _resigned(replace(good, bundle_digest=bytes_digest(other)), server)
    assert "code" in _refused(pack_parcel(signed, toy_plan(), other), server.public)


def test_rubbish_and_bombs_are_refused_in_our_own_words(server):
    bomb = _packed({BUNDLE: bytes(65 << 20), PLAN: b"", DESCRIPTION: b"{}"})
    for blob in (b"", b"PK", b"rubbish" * 100, bomb, _packed({})):
        _refused(blob, server.public)


def test_the_command_keeps_a_release_once_and_hospitals_can_fetch_it(tmp_path):
    consortium = Consortium.init(tmp_path / "consortium", "lungs", ["localhost:9443"])
    (tmp_path / "plan.toml").write_text(plans.dump_plan(toy_plan()))
    words = ["release", str(tmp_path / "plan.toml"), "--folder", str(tmp_path / "consortium"), "--json"]
    first, again = (CliRunner().invoke(app, words) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    assert json.loads(first.stdout) == json.loads(again.stdout)
    made = json.loads(first.stdout)
    [row] = consortium.book.releases()
    assert (row.id, row.title) == (made["id"], toy_plan().study.question)
    opened = parcel_of(consortium, row.id)
    assert asdict(opened.release) == made
    folder = consortium.folder / "releases" / row.id
    assert (folder / BUNDLE).read_bytes() == opened.bundle
    assert released(consortium, toy_plan()) == opened.release
    with pytest.raises(InputError, match="never made"):
        parcel_of(consortium, "toy-1-00000000")


def test_a_plan_that_cannot_be_trained_is_not_released(tmp_path):
    Consortium.init(tmp_path / "consortium", "lungs", ["localhost:9443"])
    text = plans.dump_plan(toy_plan()).replace(
        'name = "small-cnn"', 'name = "small-cnn"\nweights = "imagenet"'
    )
    (tmp_path / "plan.toml").write_text(text)
    done = CliRunner().invoke(
        app, ["release", str(tmp_path / "plan.toml"), "--folder", str(tmp_path / "consortium")]
    )
    assert done.exit_code == 2
    assert not (tmp_path / "consortium" / "releases").exists()


def test_a_study_that_was_not_released_as_it_would_run_is_refused_by_name(tmp_path):
    """Nobody could have approved it; neither could they another version, nor the same plan with other code."""
    consortium = Consortium.init(tmp_path / "consortium", "lungs", ["localhost:9443"])
    plan, folder = tmp_path / "plan.toml", ["--folder", str(tmp_path / "consortium")]
    plan.write_text(plans.dump_plan(toy_plan()))
    row = ReleaseRow(
        f"{toy_plan().study.name}-{toy_plan().study.version}-0a1b2c3d", 0.0, "with other code", b""
    )
    for known in ([], [row]):
        for one in known:
            consortium.book.add_release(one)
        refused = CliRunner().invoke(app, ["submit", str(plan), *folder])
        assert refused.exit_code == FederationError.exit_status
        assert "was not released" in refused.output
        assert ("0a1b2c3d" in refused.output) == bool(known)
        assert not (consortium.folder / "runs").exists()
    assert CliRunner().invoke(app, ["release", str(plan), *folder]).exit_code == 0
    queued = CliRunner().invoke(app, ["submit", str(plan), *folder, "--json"])
    assert json.loads(queued.stdout)["state"] == "queued"
    assert "run-exists" not in CliRunner().invoke(app, ["runs", *folder]).output
    plan.write_text(plans.dump_plan(replace(toy_plan(), study=replace(toy_plan().study, version=2))))
    assert CliRunner().invoke(app, ["submit", str(plan), *folder]).exit_code == FederationError.exit_status
