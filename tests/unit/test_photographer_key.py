"""One person is one person: names in one form, and one key for the life of a pool."""

import stat
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc.photos.photographers import PhotographerKeyError, check_key, normal_form, photographer_id
from orchestration.cli import main
from orchestration.workspace import PHOTOGRAPHER_KEY_VARIABLE, Workspace, WorkspaceError
from tests.photo_fixtures import KEY
from tests.unit.pretended import bare_workspace


@given(st.text(max_size=20))
def test_forms_of_one_name_are_one_person(name):
    person = photographer_id(name, KEY)
    for form in ("NFC", "NFD"):
        assert photographer_id(unicodedata.normalize(form, name), KEY) == person
    assert photographer_id(f"\ufeff {name}\t", KEY) == person
    assert normal_form(normal_form(name)) == normal_form(name)


def test_numbers_and_names():
    assert len({normal_form(text) for text in ("12345", "12345.0", " 12345.00 ")}) == 1
    apart = ["12345", "12345.5", "1234", "Müller", "Möller", "anna", "Anna", "12345.0.0", "v1.0"]
    assert len({photographer_id(text, KEY) for text in apart}) == len(apart)


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.delenv(PHOTOGRAPHER_KEY_VARIABLE, raising=False)
    made = bare_workspace(tmp_path / "w", {})
    made.pool.mkdir()
    return made


def test_a_key_is_made_once_for_its_owner_only(workspace):
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: workspace.photographer_key(), range(64)))
    assert len(keys) == 1
    folder = workspace.root / ".geoloc"
    assert [path.name for path in folder.iterdir()] == ["photographer.key"]
    assert stat.S_IMODE((folder / "photographer.key").stat().st_mode) == 0o600


def test_another_key_is_noticed_before_anybody_is_split(workspace):
    check_key(workspace.pool, b"the first key")
    check_key(workspace.pool, b"the first key")
    with pytest.raises(PhotographerKeyError, match="hashed with another key"):
        check_key(workspace.pool, b"another key")


def test_a_lost_key_is_noticed_and_not_made_again(workspace):
    check_key(workspace.pool, workspace.photographer_key())
    path = workspace.root / ".geoloc" / "photographer.key"
    path.unlink()
    with pytest.raises(WorkspaceError, match=r"photographer\.key is missing"):
        workspace.photographer_key()
    assert not path.exists()


def test_a_key_that_is_none_is_named(workspace, monkeypatch):
    path = workspace.root / ".geoloc" / "photographer.key"
    path.parent.mkdir()
    path.write_bytes(b"\n")
    with pytest.raises(WorkspaceError, match=r"photographer\.key must hold a key of at least 5 bytes, got 0"):
        workspace.photographer_key()
    monkeypatch.setenv(PHOTOGRAPHER_KEY_VARIABLE, "abc")
    with pytest.raises(WorkspaceError, match=PHOTOGRAPHER_KEY_VARIABLE):
        workspace.photographer_key()


def test_init_completes_a_gitignore(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestration.workspace._run", lambda command, folder: None)  # git and DVC are slow
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / ".gitignore").write_text("*.tmp\ndata/\n!.geoloc/")
    assert main(["init", str(folder)]) == 0
    lines = (folder / ".gitignore").read_text().splitlines()
    assert lines[:3] == ["*.tmp", "data/", "!.geoloc/"]
    assert set(lines[3:]) == {"/build/", "/mlflow/", "/.dagster/", "/.geoloc/"}
    before = (folder / ".gitignore").read_text()
    main(["init", str(folder)])
    assert (folder / ".gitignore").read_text() == before
