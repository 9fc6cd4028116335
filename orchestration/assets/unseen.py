"""Other recipes' trainings that a recipe builds on (`model.weights: recipe:NAME`, a teacher) must not have seen its
test photos. This is checked photo by photo, as equal settings do not tell which photos there were."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from geoloc.photos.splits import CONTEXT, TRAIN, UNUSED, VALIDATION
from geoloc.settings import SettingsError
from orchestration.assets.inputs import read_photos, stored
from orchestration.lineage.build import Build
from orchestration.plan.chain import STAGES, Borrowing, borrowings, inputs_of, uses
from orchestration.workspace import WorkspaceError


def refuse_seen_tests(build: Build, stage: str = "classifier", tests: pd.DataFrame | None = None) -> None:
    """Raise SettingsError if a recipe that a stage of this one builds on was trained on `tests` (photo_id, sha256,
    photographer; default: those of this recipe's test sets), or on others by their photographers; WorkspaceError if
    what it was trained on is not known any more."""
    if tests is None:
        photos = read_photos(build.folder("splits"))
        tests = photos[~photos["split"].isin([TRAIN, VALIDATION, CONTEXT, UNUSED])]
    for key, other, trained in trained_before(build, stage):
        seen = _seen(other, trained)
        found = tests["photo_id"].isin(seen["photo_id"]) | tests["sha256"].isin(seen["sha256"].dropna())
        known = tests["photographer"].isin(seen["photographer"].dropna())
        if (found | known).any():
            raise SettingsError(
                f"{key} must name a recipe that has not seen the test photos; got {other.recipe}, trained on "
                f"{int(found.sum())} of the {len(tests)} test photos of {build.recipe} and on others by photographers "
                f"of {int((known & ~found).sum())}, such as {tests.loc[found | known, 'photo_id'].iloc[0]}: give both "
                "recipes the same splits and seed and build them on the same photos, or take other weights"
            )


def trained_before(build: Build, stage: str = "classifier") -> Iterator[tuple[str, Build, str]]:
    """Yields the recipes whose trainings go into a stage of this one, and through them into it: the setting that names
    the first of them, the recipe, and its stage that is read."""
    waiting = [(row.setting, row, recipe, build) for row, recipe in _into(build, stage)]
    while waiting:
        key, row, recipe, borrower = waiting.pop()
        other = borrower.of(recipe)
        if row.stage != "features":
            yield key, other, row.stage
        waiting += [(key, further, name, other) for further, name in _into(other, row.stage)]


def _into(build: Build, stage: str) -> list[tuple[Borrowing, str]]:
    """What a stage of a recipe, or one that it reads, borrows from other recipes. So features of first weights know
    nothing of a teacher, but all that the recipe those weights came from knows."""
    read = [STAGES[name] for name in (stage, *inputs_of(build.settings, STAGES[stage]))]
    return [
        (row, recipe)
        for row, recipe in borrowings(build.settings)
        if any(uses(one, row.setting) for one in read)
    ]


def _seen(build: Build, stage: str) -> pd.DataFrame:
    """The photos that the recipe's networks behind the output of `stage` were trained on or chosen by."""
    split, behind = build.record("splits"), (stage, *inputs_of(build.settings, STAGES[stage]))
    for name in ("classifier", "metric"):
        if name not in behind:
            continue
        trained = build.record(name)
        if not trained or not split or trained.inputs.get("splits") != split.content:
            raise WorkspaceError(
                f"the photos that {build.name(name)} was trained on are not known any more, as its splits were "
                f"built again since; build it again with: {build.command()}"
            )
    photos = stored(read_photos(build.folder("splits")))
    return photos[photos["split"].isin([TRAIN, VALIDATION])]
