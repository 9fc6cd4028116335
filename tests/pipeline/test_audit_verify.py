"""`geoloc audit --verify`: one changed byte, anywhere, is found and its file is named."""

from __future__ import annotations

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.lineage.build import Build
from orchestration.lineage.earlier import earlier_records, keep_earlier
from tests.pipeline.conftest import copy_workspace, geoloc


@pytest.fixture(scope="module")
def planted(original, tmp_path_factory):
    """A workspace for planting changes; each test puts back what it changed."""
    made = copy_workspace(original, tmp_path_factory.mktemp("planted") / "w")
    build = Build(made)
    record = build.built("index")
    keep_earlier(build, type(record)(**{**vars(record), "seconds": 0.5}))  # as if it was built again
    return made


def verified(workspace, capsys, *words):
    """The exit status, and what was found."""
    capsys.readouterr()
    status = geoloc(workspace, "audit", *words, "--verify", "--json")
    return status, json.loads(capsys.readouterr().out)["verified"]


def vouched_for(workspace):
    """The files that the audit vouches for: photos, catalogs, outputs, records, checks, facts, patches, stamps."""
    of_runs = workspace.mlflow.glob("artifacts/*/artifacts/**/*")
    files = [*workspace.pool.rglob("*"), *workspace.build.rglob("*"), workspace.data_pointer, *of_runs]
    return sorted(
        path for path in files if (path.is_file() and path.suffix != ".png") or path.parent.name == "figures"
    )


def test_an_untouched_workspace_is_as_recorded(planted, capsys):
    status, found = verified(planted, capsys)
    assert (status, found["differs"], found["unknown"]) == (0, [], [])
    assert found["outputs"] == len(Build(planted).stages)
    assert geoloc(planted, "audit", "--verify") == 0
    assert capsys.readouterr().out.endswith("every byte is as recorded\n")


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(data=st.data())
def test_a_changed_byte_anywhere_is_found(planted, capsys, data):
    kinds = {}
    for path in vouched_for(planted):
        kinds.setdefault(
            f"{path.relative_to(planted.root).parts[0]}/{path.parent.name}{path.suffix}", []
        ).append(path)
    path = data.draw(st.sampled_from(kinds[data.draw(st.sampled_from(sorted(kinds)))]))
    before = path.read_bytes()
    if not before:
        return
    at = data.draw(st.integers(0, len(before) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    _replace(path, before[:at] + bytes([before[at] ^ bit]) + before[at + 1 :])
    try:
        capsys.readouterr()
        status = geoloc(planted, "audit", "--verify")
        told = capsys.readouterr()
        assert status == 1, (path, at, bit)
        assert path.name in told.out + told.err or path.stem in told.out + told.err, (path, told)
    finally:
        _replace(path, before)


def _replace(path, content):
    """New bytes under the same name, size and times: as damage of a disk, which no list of changed files shows."""
    state, mode = path.stat(), path.stat().st_mode
    copy = path.with_name(f"{path.name}.copy")  # the file may be a hard link into DVC's cache
    copy.write_bytes(content)
    copy.chmod(mode)
    shutil.copystat(path, copy)
    copy.replace(path)
    assert path.stat().st_mtime_ns == state.st_mtime_ns


@pytest.mark.parametrize("field", ["code_version", "seconds", "dagster_run", "environment"])
def test_a_record_that_was_edited_is_found(workspace, capsys, field):
    path = Build(workspace).record_path("classifier")
    values = json.loads(path.read_text(encoding="utf-8"))
    values[field] = {"torch": "9"} if field == "environment" else 1.5 if field == "seconds" else "another"
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    status, found = verified(workspace, capsys, "report")
    assert status == 1
    assert any("lineage/classifier.json: its seal is broken" in one for one in found["differs"])
    assert verified(workspace, capsys, "default/splits")[0] == 0  # what is not behind it is not asked


def test_the_photos_of_a_changed_shard_are_named(workspace, capsys):
    from geoloc.photos.catalog import read_catalog

    row = read_catalog(workspace.pool).iloc[3]
    path = workspace.pool / "shards" / row["shard"]
    content = bytearray(path.read_bytes())
    content[int(row["offset"]) + 20] ^= 4
    _replace(path, bytes(content))
    found = verified(workspace, capsys, "default/splits")[1]["differs"]
    assert len(found) == 1
    assert f"data/shards/{row['shard']} was changed (photo {row['photo_id']} " in found[0]


def test_records_of_an_older_geoloc_are_named_and_are_no_difference(workspace, capsys):
    path = Build(workspace).record_path("classifier")
    values = json.loads(path.read_text(encoding="utf-8"))
    for name in ("seal", "hardware", "workspace_patch", "code_patch"):
        del values[name]
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    status, found = verified(workspace, capsys)
    assert (status, found["unknown"]) == (0, ["build/default/lineage/classifier.json"])


def test_a_seal_that_is_called_otherwise_is_no_older_file(planted, capsys):
    build = Build(planted)
    facts = build.record_path("splits").parent / "facts" / "splits" / "facts.json"
    for path in (build.record_path("splits"), build.checks_path("splits"), facts):
        before = path.read_bytes()
        _replace(path, before.replace(b'"seal"', b'"sea\x6d"'))
        try:
            status, found = verified(planted, capsys)
        finally:
            _replace(path, before)
        assert status == 1
        assert any(f"{path.name}: it has the unknown key 'seam'" in one for one in found["differs"])


def test_what_accept_and_forget_change_is_sealed_again(workspace, capsys):
    from orchestration.lineage.seal import broken_seal, resealed

    build = Build(workspace)
    record = build.built("partition")
    record.write(build.record_path("partition"))
    assert broken_seal(build.record_path("partition"), vars(record)) == ""
    before = build.record_path("partition").read_text(encoding="utf-8")
    after = resealed(before, before.replace(record.started_at, "(taken down)"))
    build.record_path("partition").write_text(after, encoding="utf-8")
    assert broken_seal(build.record_path("partition"), vars(record)) == ""
    edited = before.replace(record.started_at, "2020-01-01")
    assert resealed(edited, edited) == edited  # damage is not blessed


def test_an_output_that_is_built_again_leaves_its_record(workspace):
    build = Build(workspace)
    first = build.built("partition")
    assert geoloc(workspace, "build", "--only", "partition", "--force", "--no-commit") == 0
    (kept,) = earlier_records(build, "partition")
    assert kept == first
    assert build.built("partition").hardware["threads"] == "1"
