"""Growth: what changed, which new photos are references, what is out of date, and what the sensor starts."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml
from dagster._utils.schedules import is_valid_cron_schedule
from hypothesis import assume, example, given
from hypothesis import strategies as st

from geoloc.files import write_parquet
from geoloc.photos.growth import REFERENCE, growth, newcomers
from geoloc.photos.splits import make_splits
from geoloc.settings import SettingsError
from orchestration.graph import growth as graph_growth
from orchestration.graph.definitions import job_name
from orchestration.lineage.build import Build
from orchestration.lineage.stale import stale_stages
from orchestration.operations.growth import Seen
from orchestration.plan.chain import SPLITS_FILE
from orchestration.plan.operations_settings import GrowthSettings, is_cron
from tests.unit.pretended import bare_workspace, new_data, pretend, pretend_stage
from tests.unit.test_splits import EVERYTHING, make_catalog, settings_of


def points(latitudes: list[float], prefix: str, source: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "photo_id": [f"{prefix}{i}" for i in range(len(latitudes))],
            "latitude": latitudes,
            "longitude": 10.0,
            "source": source,
        }
    )


def test_growth_counts_what_came_and_went_and_how_far_places_moved() -> None:
    then = points([0.0] * 80, "old")
    now = pd.concat([then.iloc[10:], points([0.0] * 10, "new", "b"), points([80.0] * 20, "north", "c")])
    found = growth(then, now)
    assert (dict(found.added), found.removed, found.then, found.now) == ({"b": 10, "c": 20}, 10, 80, 100)
    assert found.share == pytest.approx(30 / 80)
    assert found.drift == pytest.approx(0.2)
    assert "30 photos added (10 of b, 20 of c), 10 removed: 80 → 100, grown by 37.5 %" in str(found)
    assert growth(then, then).share == growth(then, then).drift == 0


@given(seed=st.integers(0, 50), kept=st.floats(0.3, 0.95))
def test_a_new_photo_is_a_reference_only_apart_from_all_that_is_held_out(seed, kept) -> None:
    catalog = make_catalog(photos=400, photographers=40, seed=seed)
    # New photos come last, as in a pool.
    then = catalog.iloc[: int(kept * len(catalog))]
    settings = settings_of(**EVERYTHING | {"test": {"share": 0.3}, "external": {"im2gps3k": "im2gps3k"}})
    try:
        splits, now = make_splits(then, settings, 7), make_splits(catalog, settings, 7)
    except SettingsError:  # too few photos for some share
        return
    found = newcomers(with_facts(catalog), splits, settings, 7).set_index("photo_id")
    assert list(found.index) == list(catalog["photo_id"].iloc[len(then) :])
    references = found.index[found["split"] == REFERENCE]
    held = splits.loc[~splits["split"].isin(["train", "unused"]), "photo_id"]
    people = catalog.set_index("photo_id")["photographer"]
    assert not set(people.loc[references]) & set(people.loc[held])
    groups = now.set_index("photo_id")["near_duplicates"]
    assert not set(groups.loc[references].dropna()) & set(groups.loc[held].dropna())
    assert (now.set_index("photo_id").loc[references, "split"] == "train").all()
    assert (found.loc[found["split"] != REFERENCE, "reason"] == "waits for the next training").all()


def with_facts(catalog: pd.DataFrame) -> pd.DataFrame:
    return catalog.assign(prob_indoor=np.nan)


@pytest.fixture
def waiting(tmp_path):
    """A built recipe whose new photos wait."""
    workspace = bare_workspace(tmp_path / "w", {"growth": {"admit": "retraining", "recipes": ["default"]}})
    build = Build(workspace)
    pretend(build)
    return build


def test_photos_that_wait_leave_the_trained_alone_until_they_are_admitted(waiting) -> None:
    everything = [stage.name for stage in waiting.stages]
    assert stale_stages(waiting, everything) == {}
    new_data(waiting.workspace, "second")
    stale = stale_stages(Build(waiting.workspace), everything)
    assert not {"splits", "partition", "classifier"} & set(stale)
    assert {"photos", "growth", "features", "embeddings", "index", "evaluation", "report"} <= set(stale)
    pretend_stage(waiting, waiting.stages[everything.index("growth")], "two photos")
    stale = stale_stages(Build(waiting.workspace), everything)
    assert {"embeddings", "index", "evaluation"} <= set(stale)
    assert not {"splits", "partition", "classifier"} & set(stale)

    admitted = stale_stages(Build(waiting.workspace), everything, admit=True)
    assert admitted["splits"] == ["photos that waited are admitted"]
    assert {"partition", "classifier"} <= set(admitted)
    # With the other policy, every growth trains again.
    (waiting.workspace.root / "params.yaml").write_text(yaml.safe_dump({"growth": {"admit": "always"}}))
    assert "splits" in stale_stages(Build(waiting.workspace), everything)


def seen(version: str, waits: bool = True, reasons: tuple[str, ...] = ()) -> Seen:
    found = growth(points([0.0] * 4, "old"), points([0.0] * 5, "old"))
    return Seen("default", version, "its splits were made", found, waits, reasons)


def test_the_sensor_observes_each_version_once_and_a_newer_one_supersedes_what_is_queued(
    waiting, monkeypatch
) -> None:
    workspace = waiting.workspace
    job = dg.define_asset_job(job_name("default"), selection="*")
    sensor = graph_growth.growth_sensor(workspace, {"default": job})
    workspace.pool.mkdir()
    now = [seen("first.dir", waits=False)]
    monkeypatch.setattr(graph_growth, "look", lambda *_: now[0])

    @dg.asset(key=["default", "splits"])
    def splits() -> None: ...

    defs = dg.Definitions(assets=[splits], jobs=[job], sensors=[sensor])
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None) -> dg.SensorResult | dg.SkipReason:
            context = dg.build_sensor_context(instance=instance, cursor=cursor, definitions=defs)
            return sensor(context)

        first = tick(None)
        assert first.run_requests == []
        assert [event.tags for event in first.asset_events] == [{"dagster/data_version": "first.dir"}]
        assert isinstance(tick(first.cursor), dg.SkipReason)

        new_data(workspace, "second")
        now[0] = seen("second.dir")
        (refresh,) = tick(first.cursor).run_requests
        assert (refresh.run_key, refresh.run_config) == ("default:second.dir:refresh", {})
        queued = instance.create_run_for_job(
            defs.resolve_job_def(job_name("default")),
            status=dg.DagsterRunStatus.NOT_STARTED,
            tags=dict(refresh.tags),
        )
        new_data(workspace, "third")
        now[0] = seen("third.dir", reasons=("grown by 25.0 %",))
        result = tick("second.dir")
        (retrain,) = result.run_requests
        assert retrain.run_key == "default:third.dir:retrain"
        assert retrain.run_config == {"ops": {"default__splits": {"config": {"admit": True}}}}
        assert retrain.tags["geoloc/reason"] == "grown by 25.0 %"
        assert instance.get_run_by_id(queued.run_id).status == dg.DagsterRunStatus.CANCELED
        (told,) = result.asset_events
        assert told.metadata["added"].value == 1

        # The photos are again those of the run that was cancelled: Dagster knows its key, and would start nothing.
        def started(request: dg.RunRequest) -> None:
            instance.create_run_for_job(defs.resolve_job_def(job_name("default")), tags=dict(request.tags))

        started(retrain)
        new_data(workspace, "second")
        now[0] = seen("second.dir")
        (back,) = tick("third.dir").run_requests
        assert back.run_key != refresh.run_key
        started(back)
        assert tick("third.dir").run_requests[0].run_key == back.run_key  # the same look, after a kill


def test_the_schedule_trains_only_if_photos_wait(waiting, monkeypatch) -> None:
    workspace = waiting.workspace
    job = dg.define_asset_job(job_name("default"), selection="*")
    assert graph_growth.retraining_schedules(workspace, {"default": job}) == []
    values = {"growth": {"admit": "retraining", "recipes": ["default"], "retrain_cron": "0 3 * * 0"}}
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(values))
    (schedule,) = graph_growth.retraining_schedules(workspace, {"default": job})
    assert schedule.cron_schedule == "0 3 * * 0"
    sundays = [datetime(2026, 3, day, 3, tzinfo=UTC) for day in (1, 8)]
    for waits, kind in ((False, dg.SkipReason), (True, dg.RunRequest)):
        monkeypatch.setattr(graph_growth, "look", lambda *_, waits=waits: seen("second.dir", waits))
        found = [schedule(dg.build_schedule_context(scheduled_execution_time=at)) for at in sundays]
        assert all(isinstance(one, kind) for one in found)
    assert found[0].run_key != found[1].run_key  # a training that failed is due again


@pytest.mark.parametrize(
    "cron", ["61 * * * *", "0 24 * * *", "0 3 30 2 *", "0 3 31 4,jun *", "0 3 * * nod", "*/0 * * * *"]
)
def test_a_cron_expression_that_dagster_does_not_take_is_refused_with_the_settings(cron) -> None:
    with pytest.raises(SettingsError, match=r"growth\.retrain_cron must be a cron expression"):
        GrowthSettings(retrain_cron=cron).check("growth")


def cron_fields(least: int, largest: int, *names: str) -> st.SearchStrategy[str]:
    """One field of a cron expression, mostly a good one."""
    numbers = st.integers(least, largest + 1).map(str)
    ranges = st.lists(numbers.map(int), min_size=2, max_size=2).map(sorted)
    part = st.one_of(
        st.just("*"), numbers, ranges.map(lambda ends: f"{ends[0]}-{ends[1]}"), numbers.map("*/{}".format),
        st.sampled_from(names or ("*",)),
    )  # fmt: skip
    return st.lists(part, min_size=1, max_size=2).map(",".join)


@given(
    st.tuples(
        cron_fields(0, 59), cron_fields(0, 23), cron_fields(1, 31),
        cron_fields(1, 12, "jan", "FEB-apr", "feb"), cron_fields(0, 7, "sun", "MON-FRI"),
    ).map(" ".join)
)  # fmt: skip
@example("0 3 * * 0")
@example("5/15 0-6/2 1,15 JAN-mar sun")
def test_dagster_takes_each_cron_expression_that_is_allowed(cron) -> None:
    assume(is_cron(cron))
    assert is_valid_cron_schedule(cron)


def test_what_was_grown_is_measured_since_the_last_training(waiting, monkeypatch) -> None:
    from orchestration.operations import growth as operations

    workspace = waiting.workspace
    write_parquet(waiting.folder("splits") / SPLITS_FILE, points([0.0] * 100, "old"))
    catalog = pd.concat([points([0.0] * 100, "old"), points([80.0] * 19, "new")])
    monkeypatch.setattr(operations, "read_catalog", lambda *_: catalog)
    assert operations.look(workspace, "default").reasons == ()  # the same data version
    with pytest.raises(SettingsError, match="recipe must be one of default; got 'nosuch'"):
        operations.look(workspace, "nosuch")
    new_data(workspace, "second")
    found = operations.look(workspace, "default")
    assert (found.waiting, found.reasons) == (True, ())
    catalog = pd.concat([catalog, points([80.0] * 11, "newer")])
    found = operations.look(workspace, "default")
    assert [one.partition(" by")[0] for one in found.reasons] == ["grown", "drifted"]


def test_growth_since_nothing_is_no_number_that_json_does_not_have(waiting, monkeypatch) -> None:
    found = growth(points([], "old"), points([0.0] * 5, "new"))
    told = Seen("default", "first.dir", "nothing was built", found, True, ())
    assert "inf" not in str(told)
    json.dumps(told.facts(), allow_nan=False)
    graph_growth.observation(told)
