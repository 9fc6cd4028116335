"""The walk of docs/operations.md: every command of it is run, in order, as the page has it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from geoloc.files import file_hashes
from geoloc.models.export import export_network
from geoloc.photos.catalog import read_catalog
from geoloc.photos.shards import ShardReader
from orchestration.cli import main
from orchestration.lineage.build import Build
from orchestration.run.facts import read_facts
from orchestration.stores.champion import champion
from orchestration.workspace import Workspace

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
CHEAP = {
    "seed": 3,
    "splits": {"validation": {"share": 0.15}, "test": {"share": 0.2}},
    "partitions": {"fine": {"s2": {"max_photos": 30, "min_photos": 5}}},
    "model": {"backbone": "squeezenet1_1", "image_size": 64},
    "training": {"epochs": 1, "batch_size": 16},
    "embeddings": {"models": ["classifier"]},
    "evaluation": {"resamples": 50, "explained": 0},
}
REFUSALS = {"promote --reason": (0, 1)}
"""Commands whose exit status depends on the photos: a challenger may stay one."""
TRAINED = ("splits", "partition", "classifier")


def walk() -> tuple[list[list[str]], dict]:
    """The commands of the walk, and its settings."""
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    (settings,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    lines = re.findall(
        r"^    (\S.*)$", re.sub(r"```.*?```", "", section, flags=re.DOTALL), flags=re.MULTILINE
    )
    return [shlex.split(line) for line in lines], yaml.safe_load(settings)


def trained(root: Path) -> dict[str, dict[str, str]]:
    return {name: file_hashes(Build(Workspace.open(root)).folder(name)) for name in TRAINED}


def test_the_walk_of_the_page(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orchestration.assets.exporting.export_network", export_network)
    commands, settings = walk()
    told: dict[str, str] = {}
    before: dict[str, dict[str, dict[str, str]]] = {}
    for program, *words in commands:
        line = shlex.join(words)
        if program == "cd":
            monkeypatch.chdir(words[0])
            Path("params.yaml").write_text(yaml.safe_dump(CHEAP | settings))
            continue
        assert program == "geoloc"
        before[line] = trained(Path.cwd()) if Path("build/default/classifier").is_dir() else {}
        status = main(words)
        assert status in REFUSALS.get(" ".join(words[:2]), (0,)), line
        told[line] = "".join(capsys.readouterr())
        if line == "grow":
            build = Build(Workspace.open("."))
            facts = read_facts(build, build.built("embeddings"))
            assert facts["copied from the output before"] >= 250  # of 300: whole batches
        if words[0] == "sample" and "--since" not in words:
            _take_a_photo(Path.cwd())
    workspace, root = Workspace.open("."), Path.cwd()
    lines = list(told)
    assert re.search(
        r"since the champion \(geoloc/1\) was trained, (2\d|3\d) photos added", told["grow --look"]
    )
    # A growth trains nothing; a retraining does.
    following = lines[lines.index("grow") + 1]
    assert before["grow"] == before[following]
    retrain = next(line for line in lines if line.startswith("grow --retrain"))
    assert before[retrain] != before[lines[lines.index(retrain) + 1]]
    history = told["promote --history"]
    assert "rolled back: " in history
    assert "Ada: it was no better" in history
    # What serves was taken back before the take-down, and answers after it.
    serving = champion(workspace)
    assert serving is not None
    assert f"answered by the champion, {serving}" in told["locate photo.jpg"]
    assert "p1-000011" not in set(read_catalog(root / "data")["photo_id"])
    # Its answers lead to the version that gave them, though all its outputs were replaced since.
    assert main(["locate", "photo.jpg", "--json"]) == 0
    Path("answers.json").write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["audit", "answers.json"]) == 0
    assert f"registered model {serving}, alias champion" in capsys.readouterr().out


def _take_a_photo(root: Path) -> None:
    row = read_catalog(root / "data").dropna(subset=["shard"]).iloc[0]
    with ShardReader(root / "data") as reader:
        Path("photo.jpg").write_bytes(reader.read(row["shard"], int(row["offset"]), int(row["length"])))
