"""Is server.toml read as it is documented, laid over by the environment, and refused where it is wrong?"""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from common.errors import SettingsError
from common.settings import load_settings
from server.federation_folder import Consortium
from server.settings import ServerSettings

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "server.example.toml"


def test_the_example_shows_every_key_with_its_default():
    raw = tomllib.loads(EXAMPLE.read_text(encoding="utf-8"))
    shown = TypeAdapter(ServerSettings).validate_python(raw)
    made = TypeAdapter(ServerSettings).validate_python({"federation": raw["federation"]})
    assert shown == made
    assert set(raw) == {field.name for field in dataclasses.fields(ServerSettings)}
    for section, keys in raw.items():
        assert set(keys) == {field.name for field in dataclasses.fields(getattr(shown, section))}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("[edge]\nlisten = []", "edge.listen"),
        ("[edge]\nbody_mib = 0", "edge.body_mib"),
        ('[edge]\nlisten = ["0.0.0.0:443; include /etc/passwd"]', "edge.listen"),
        ("[superlink]\nport = 70000", "superlink.port"),
        ('[superlink]\nhost = "0.0.0.0"', "superlink.host"),
        ('[api]\nhost = "10.0.0.5"', "api.host"),
        ("[superlnk]\nport = 1", "superlnk"),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path, line, named):
    path = tmp_path / "server.toml"
    path.write_text(f'[federation]\nname = "lungs"\naddresses = ["a.example:443"]\n{line}\n')
    with pytest.raises(SettingsError) as refusal:
        load_settings(path, ServerSettings, {})
    assert named in str(refusal.value)


def test_the_passphrase_comes_from_a_file_that_its_owner_alone_reads(tmp_path):
    """Kept apart from the folder, named in the environment; without it or open to others nothing is certified."""
    phrase = tmp_path / "apart"
    phrase.write_text("a passphrase of our own")
    phrase.chmod(0o600)
    made = Consortium.init(tmp_path / "fed", "lungs", ["a.example:443"], phrase)
    assert not (tmp_path / "fed" / "secrets" / "ca.passphrase").exists()
    assert made.authority().pem == made.authority_pem
    phrase.chmod(0o644)
    with pytest.raises(SettingsError) as refusal:
        made.authority()
    assert refusal.value.code == "key-rights"
    phrase.unlink()
    with pytest.raises(SettingsError) as refusal:
        made.authority()
    assert refusal.value.code == "key-missing"
    phrase.write_text("another passphrase, longer")
    phrase.chmod(0o600)
    with pytest.raises(SettingsError) as refusal:
        made.authority()
    assert refusal.value.code == "passphrase"
    for path in (tmp_path / "fed").rglob("*"):
        if path.is_file():
            assert b"a passphrase of our own" not in path.read_bytes()


def test_every_secret_of_a_new_federation_is_its_owners_alone(tmp_path):
    folder = Consortium.init(tmp_path / "fed", "lungs", ["a.example:443"]).folder
    private = [path for path in folder.rglob("*") if path.suffix in {".key", ".secret", ".passphrase"}]
    assert len(private) == 7
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    with pytest.raises(SettingsError):
        Consortium.init(folder, "lungs", ["a.example:443"])
