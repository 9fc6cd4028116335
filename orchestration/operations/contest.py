"""Champion against challenger: both answer the same photos, and the differences are paired and by photographer.

Only photos that neither has learned from are asked: test photos of the challenger that the champion did not train or
validate on, nor on near-duplicates of them or other photos by their photographers. Test photos of both are the frozen
test set; the new ones are by photographers whom the champion never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geoloc.evaluation.measures.accuracy import error_km, within
from geoloc.evaluation.measures.bootstrap import photographer_clusters
from geoloc.evaluation.measures.comparison import compare
from geoloc.evaluation.measures.groups import continent_groups
from geoloc.evaluation.measures.scores import GEOSCORE, MOST_POINTS, geoscore
from geoloc.evaluation.measures.trainings import Luck, pooled_luck
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_parquet
from geoloc.localizers.served import INDEX, Served
from geoloc.photos.owners import photographer_keys
from geoloc.photos.shards import ShardReader
from geoloc.photos.splits import CONTEXT
from geoloc.sphere import LEVELS_KM
from orchestration.assets.inputs import with_pixels
from orchestration.lineage.build import Build
from orchestration.plan.operations_settings import PromotionSettings
from orchestration.plan.seeds import without_seed
from orchestration.run.reuse import built_recipes
from orchestration.stores.champion import Version, splits_of
from orchestration.workspace import Workspace, WorkspaceError

SCORE = "geoscore"
FROZEN, NEW = "frozen", "new photographers"
"""Groups of photos: test photos of both; and those by photographers whom the champion never saw."""
COLUMNS = (
    "test", "photos", "method", "measure", "champion", "challenger", "difference", "low", "high", "p", "n",
    "photographers",
)  # fmt: skip
_AT_ONCE = 256
_MEASURES = {**LEVELS_KM, SCORE: float("nan")}


@dataclass(frozen=True, eq=False)
class Contest:
    """`table` (COLUMNS) has a row for each test set, group of photos, method and measure; shares are in [0, 1].
    `left_out` counts test photos of the challenger that were not asked, by reason. `trainings`: how many trainings of
    the recipes told the luck of one, 0 if the intervals do not know it."""

    table: pd.DataFrame
    left_out: Mapping[str, int]
    trainings: int = 0


def contest(
    workspace: Workspace,
    champion: Version,
    challenger: Version,
    policy: PromotionSettings,
    say: Callable[[str], None] = lambda line: None,
) -> Contest:
    """Ask both and compare. Raises WorkspaceError where it is not known what one has seen, or photos of the splits are
    missing in the pool, or one has no index that the policy asks."""
    asked, left_out = comparable(
        read_parquet(splits_of(workspace, champion)), read_parquet(splits_of(workspace, challenger))
    )
    for version in (champion, challenger):
        if set(policy.methods) - {"class"} and not (version.folder / INDEX).is_dir():
            raise WorkspaceError(
                f"promotion.methods is {', '.join(policy.methods)}, and {version} answers by class only: "
                "it has no index"
            )
    say(f"{len(asked):,} test photos that {champion} and {challenger} have not seen")
    if asked.empty:
        return Contest(pd.DataFrame(columns=list(COLUMNS)), left_out)
    asked = with_pixels(workspace.pool, asked)
    luck, trainings = _luck(workspace, challenger, champion, asked["test"].iloc[0])
    rows = []
    for method in policy.methods:
        values = {
            name: _values(workspace, version, method, asked)
            for name, version in (("champion", champion), ("challenger", challenger))
        }
        stacked = np.stack([values["champion"], values["challenger"]], axis=1)
        for test, group, chosen in _groups(asked, policy.smallest):
            known = luck if method == "class" else None
            rows.append(_compared(test, group, method, stacked[chosen], asked[chosen], policy, known))
    return Contest(pd.concat(rows, ignore_index=True), left_out, trainings)


def comparable(champion: pd.DataFrame, challenger: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The test photos of the challenger's splits that the champion has not learned from, with columns `test` and
    `group` (FROZEN or NEW); and how many are left out, by reason. Both are tables of splits."""
    tests = challenger[~challenger["split"].isin(["train", CONTEXT, "validation", "unused"])]
    tests = tests[tests["sha256"].notna()].reset_index(drop=True)
    learned = champion[champion["split"].isin(["train", CONTEXT, "validation"])]
    bytes_then = champion.set_index("photo_id")["sha256"].reindex(tests["photo_id"]).to_numpy(object)
    split_then = champion.set_index("photo_id")["split"].reindex(tests["photo_id"]).to_numpy(object)
    owners = photographer_keys(tests)
    # Groups of the challenger's table: the champion did not know of the photos that came later.
    near = challenger.loc[challenger["photo_id"].isin(learned["photo_id"]), "near_duplicates"].dropna()
    seen = tests["photo_id"].isin(learned["photo_id"]) | tests["sha256"].isin(learned["sha256"].dropna())
    reasons = pd.Series("", index=tests.index, dtype=object)
    frozen = (split_then == tests["split"].to_numpy(object)) & (
        bytes_then == tests["sha256"].to_numpy(object)
    )
    known_owner = owners.isin(set(photographer_keys(champion)))
    reasons[~frozen & known_owner] = "new, by photographers whom the champion knew"
    reasons[owners.isin(set(photographer_keys(learned)))] = "by photographers the champion has learned from"
    reasons[tests["near_duplicates"].isin(set(near)).to_numpy()] = (
        "near-duplicates of what the champion has learned from"
    )
    reasons[seen] = "the champion has learned from them"
    asked = tests.assign(test=tests["split"], group=np.where(frozen, FROZEN, NEW))[reasons == ""]
    counts = reasons[reasons != ""].value_counts()
    return asked.reset_index(drop=True), {str(why): int(count) for why, count in counts.items()}


def _values(workspace: Workspace, version: Version, method: str, photos: pd.DataFrame) -> NDArray[np.float64]:
    """What each photo's answer is worth by each measure of _MEASURES, float64 [N, M] in [0, 1]."""
    served, parts = Served.open(version.folder), []
    with ShardReader(workspace.pool) as reader:
        for start in range(0, len(photos), _AT_ONCE):
            some = photos.iloc[start : start + _AT_ONCE]
            places = zip(some["shard"], some["offset"], some["length"], strict=True)
            data = [reader.read(shard, int(offset), int(length)) for shard, offset, length in places]
            parts.append(served.locate(data, method, 1)[["latitude", "longitude"]].astype(np.float64))
    answers = pd.concat(parts)
    error = error_km(photos["latitude"], photos["longitude"], answers["latitude"], answers["longitude"])
    return np.column_stack([within(error, LEVELS_KM).astype(np.float64), geoscore(error) / MOST_POINTS])


def _groups(photos: pd.DataFrame, smallest: int) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """(test, name of the group, which photos): each test set's frozen and new photos, and continents."""
    continents = continent_groups(photos["latitude"], photos["longitude"])
    for test in dict.fromkeys(photos["test"]):
        here = (photos["test"] == test).to_numpy()
        frozen = here & (photos["group"] == FROZEN).to_numpy()
        if frozen.any():
            yield test, FROZEN, frozen
        new = here & (photos["group"] == NEW).to_numpy()
        if new.sum() >= smallest:
            yield test, NEW, new
        for continent in sorted(set(continents[here])):
            some = here & (continents == continent)
            if some.sum() >= smallest:
                yield test, str(continent), some


def _compared(
    test: str,
    group: str,
    method: str,
    values: NDArray[np.float64],
    photos: pd.DataFrame,
    policy: PromotionSettings,
    luck: Luck | None,
) -> pd.DataFrame:
    """The rows of one group and method; `values` are of champion and challenger, [N, 2, M]."""
    clusters = photographer_clusters(photographer_keys(photos))
    found = compare(
        [("challenger", "champion")],
        ["champion", "challenger"],
        values,
        clusters,
        _MEASURES,
        confidence=1 - policy.significance,
        luck=luck,
        trainings={"champion": 1, "challenger": 1},
    )
    means = values.mean(axis=0)
    return pd.DataFrame(
        {
            "test": test, "photos": group, "method": method, "measure": found["level"], "champion": means[0],
            "challenger": means[1], "difference": found["difference"], "low": found["low"], "high": found["high"],
            "p": found["p"], "n": len(photos), "photographers": len(np.unique(clusters)),
        },
        columns=list(COLUMNS),
    )  # fmt: skip


def _luck(workspace: Workspace, challenger: Version, champion: Version, test: str) -> tuple[Luck | None, int]:
    """The luck of one training, from the recipes of both that are built with several seeds; and how many trainings told
    it."""
    runs: list[NDArray[np.float64]] = []
    of = {without_seed(challenger.recipe), without_seed(champion.recipe)}
    for recipe in sorted(of):
        same = [one for one in built_recipes(workspace) if without_seed(one) == recipe]
        found = [_accuracies(Build(workspace, one), test) for one in same]
        runs.append(np.array([one for one in found if one is not None]).reshape(-1, len(_MEASURES)))
    several = [one for one in runs if len(one) > 1]
    return pooled_luck(several), sum(len(one) for one in several)


def _accuracies(build: Build, test: str) -> Sequence[float] | None:
    """The measures of the first method of a build's evaluation on `test`; None if it has none."""
    folder = build.folder("evaluation") / test
    if not (folder / "evaluation.json").is_file():
        return None
    found = Evaluation.load(folder)
    first = found.methods[0]
    accuracy = found.accuracy[found.accuracy["method"] == first].set_index("level")["accuracy"]
    scores = found.scores[(found.scores["method"] == first) & (found.scores["measure"] == GEOSCORE)]["value"]
    if scores.empty or not set(LEVELS_KM) <= set(accuracy.index):
        return None
    return [*(float(accuracy[level]) for level in LEVELS_KM), float(scores.iloc[0]) / MOST_POINTS]
