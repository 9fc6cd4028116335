"""The state of a checkout is stored whole: commit and patch give back every file that decides what is built."""

from __future__ import annotations

import subprocess

import pytest

from orchestration.lineage.origin import code_origin, keep_patch, patch_path, workspace_origin
from orchestration.results import reproduce as module
from orchestration.workspace import Workspace, WorkspaceError

FIRST = {
    "params.yaml": "seed: 1\n",
    "recipes/a.yaml": "seed: 2\n",
    "expectations/x.json": "{}\n",
    "README": "text\n",
}


def git(root, *arguments):
    command = ["git", "-C", str(root), "-c", "user.name=T", "-c", "user.email=t@localhost", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def deciding(root):
    """The files that decide what is built, with their bytes."""
    files = [root / "params.yaml", *(root / "recipes").glob("*"), *(root / "expectations").glob("*")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files if path.is_file()}


@pytest.fixture(params=[True, False], ids=["committed", "never committed"])
def dirty(request, tmp_path):
    """A workspace whose files were changed, added and removed since its commit; or that has no commit."""
    root = tmp_path / "w"
    write(root, FIRST)
    git(root.parent, "init", "-q", str(root))
    if request.param:
        git(root, "add", "-A")
        git(root, "commit", "-qm", "first")
    write(
        root,
        {"params.yaml": "seed: 7  # ü\n", "recipes/new.yaml": b"note: caf\xe9\n", "photo.jpg": b"\xff\xd8"},
    )
    (root / "expectations" / "x.json").unlink()
    return Workspace.open(root)


def test_commit_and_patch_give_the_files_back(dirty, tmp_path):
    before = git(dirty.root, "status", "--porcelain"), git(dirty.root, "count-objects")
    origin = workspace_origin(dirty)
    assert (git(dirty.root, "status", "--porcelain"), git(dirty.root, "count-objects")) == before
    assert origin.dirty is (True if origin.commit else None)
    again = tmp_path / "again"
    again.mkdir()
    if origin.commit:
        module._extract(dirty.root, origin.commit, module._COMMITTED, again)
    module._apply(dirty, keep_patch(dirty, origin.patch), again)
    assert deciding(again) == deciding(dirty.root)
    assert "photo.jpg" not in origin.patch  # what decides nothing is not kept


def test_a_clean_checkout_has_no_patch_and_a_plain_folder_no_commit(tmp_path):
    write(tmp_path / "w", FIRST)
    workspace = Workspace.open(tmp_path / "w")
    assert workspace_origin(workspace).commit is None
    assert keep_patch(workspace, workspace_origin(workspace).patch) is None
    git(tmp_path, "init", "-q", str(workspace.root))
    git(workspace.root, "add", "-A")
    git(workspace.root, "commit", "-qm", "first")
    origin = workspace_origin(workspace)
    assert (origin.dirty, origin.patch) == (False, "")
    write(workspace.root, {"dvc.lock": "x"})
    assert workspace_origin(workspace).dirty is False


def test_a_patch_that_is_gone_is_one_line(dirty, tmp_path):
    name = keep_patch(dirty, workspace_origin(dirty).patch)
    patch_path(dirty, name).unlink()
    with pytest.raises(WorkspaceError, match="with the uncommitted changes of then is missing"):
        module._apply(dirty, name, tmp_path)


def test_the_code_is_that_of_its_checkout():
    origin = code_origin()
    assert origin.commit is None or len(origin.commit) == 40
