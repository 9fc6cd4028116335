"""What killed builds leave behind is swept by the next one, and nothing else is."""

from __future__ import annotations

import pytest

from geoloc.files import atomic_folder, atomic_path, content_hash
from orchestration.lineage.build import Build
from orchestration.run.sweep import sweep
from tests.unit.pretended import bare_workspace, pretend


class Killed(BaseException):
    """Stands for kill -9: no clean-up runs after it."""


def killed_while_writing(write, path):
    with write(path) as temporary:
        (temporary / "half" if temporary.is_dir() else temporary).write_text("half-written")
        raise Killed


def test_what_killed_writers_left_is_removed_and_scratch_that_is_needed_stays(tmp_path, monkeypatch):
    build = Build(bare_workspace(tmp_path, {"seed": 3}))
    pretend(build)
    before = content_hash(build.workspace.build)
    monkeypatch.setattr("geoloc.files.shutil.rmtree", lambda *_, **__: None)
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: None)
    for write, path in (
        (atomic_folder, build.folder("splits")),
        (atomic_path, build.record_path("photos")),
        (atomic_path, build.folder("index") / "index.faiss"),
        (atomic_path, build.workspace.dvc_yaml),
    ):
        with pytest.raises(Killed):
            killed_while_writing(write, path)
    monkeypatch.undo()
    assert content_hash(build.workspace.build) != before
    for stage in ("classifier", "embeddings"):
        (build.workspace.scratch / build.name(stage) / "parts").mkdir(parents=True)
    sweep(build, {"classifier", "photos"})
    assert content_hash(build.workspace.build) == before
    assert not list(tmp_path.rglob("*.part"))
    assert [path.name for path in (build.workspace.scratch / "default").iterdir()] == ["embeddings"]
