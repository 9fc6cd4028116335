"""One number of a report: which table it comes from, with its interval and what it counts."""

from __future__ import annotations

import difflib
from typing import Any

from geoloc.evaluation.measures.scores import GEOSCORE, NLL
from geoloc.evaluation.result import Evaluation
from geoloc.files import read_json
from orchestration.lineage.build import Build
from orchestration.workspace import WorkspaceError

FORM = "report:TEST/METHOD/LEVEL"
ERRORS = ("median", "mean")
"""In place of a level: the median and mean error in km. Likewise the scores: GeoScore, right country, ..."""
UNITS = {GEOSCORE: "points", NLL: "nats"}


def find_number(build: Build, text: str) -> dict[str, Any]:
    """The number that `text`, TEST/METHOD/LEVEL, names in a build's evaluation: of a method, a baseline or a ceiling.

    Case and spaces do not matter. A level may be given by its km. Raises WorkspaceError that lists what there is.
    """
    build.built("evaluation")
    tests = [str(name) for name in read_json(build.folder("evaluation") / "evaluations.json", list)]
    test, _, rest = text.partition("/")
    method, _, level = rest.rpartition("/")
    example = f"such as report:{tests[0]}/[L]NN/city"
    if not (test and method and level):
        raise WorkspaceError(f"a number is named {FORM}, {example}; got report:{text}")
    test = _one_of(test, tests, "TEST")
    evaluation = Evaluation.load(build.folder("evaluation") / test)
    tables = {"method": evaluation.accuracy, "baseline": evaluation.baselines}
    ceilings = evaluation.ceilings.assign(
        ceiling="ceiling of " + evaluation.ceilings["partition"] + " " + evaluation.ceilings["answer"]
    )
    tables["ceiling"] = ceilings
    names = {str(name): kind for kind, table in tables.items() for name in table[kind].unique()}
    method = _one_of(method, list(names), "METHOD")
    kind = names[method]
    levels = {name: f"{km:g}" for name, km in evaluation.levels_km.items()}
    level = {**{km: name for name, km in levels.items()}}.get(level.lower().removesuffix("km").strip(), level)
    scores = evaluation.scores[evaluation.scores["method"] == method].set_index("measure")
    level = _one_of(level, [*levels, *(ERRORS if kind == "method" else ()), *scores.index], "LEVEL")
    found = {"recipe": build.recipe, "test": test, kind: method, "level": level}
    if level in scores.index:
        row = scores.loc[level]
        return found | {"value": _number(row["value"]), "unit": UNITS.get(level, "share"), "low": _number(row["low"]),
                        "high": _number(row["high"]), "n": int(row["n"])}  # fmt: skip
    if level in ERRORS:
        row = evaluation.errors.set_index("method").loc[method]
        low, high = (row["median_low"], row["median_high"]) if level == "median" else (None, None)
        return found | {"value": _number(row[f"{level}_km"]), "unit": "km", "low": _number(low), "high": _number(high),
                        "n": int(row["n"]), "answered": int(row["answered"])}  # fmt: skip
    table = tables[kind]
    row = table[(table[kind] == method) & (table["level"] == level)].iloc[0]
    return found | {
        "km": float(row["km"]), "value": _number(row["accuracy"]), "unit": "share", "low": _number(row.get("low")),
        "high": _number(row.get("high")), "n": int(row["n"]), "right": round(float(row["accuracy"]) * int(row["n"])),
    }  # fmt: skip


def number_line(number: dict[str, Any]) -> str:
    """A number as one line, as the report shows it."""
    name = next(number[kind] for kind in ("method", "baseline", "ceiling") if kind in number)
    unit = number["unit"]

    def shown(value: float | None) -> str:
        if value is None:
            return "none"
        return (
            f"{100 * value:.1f}"
            if unit == "share"
            else f"{value:,.3f}"
            if unit == "nats"
            else f"{value:,.1f}"
        )

    where = number["level"]
    if "km" in number:
        where += f" (within {number['km']:g} km)"
    elif unit == "km":
        where += " error"
    value = f"{shown(number['value'])} {'%' if unit == 'share' else unit}"
    if number["low"] is not None:
        value += f" [{shown(number['low'])}, {shown(number['high'])}] (interval by photographer)"
    of = (
        f"{number['right']:,} of {number['n']:,} photos"
        if "right" in number
        else f"over {number['n']:,} photos"
    )
    return f"{number['test']}, {name}, {where}: {value}, {of}"


def _number(value: Any) -> float | None:
    """A float that JSON can hold; None for NaN and infinity, which no number is."""
    return None if value is None or value != value or abs(value) == float("inf") else float(value)


def _one_of(text: str, known: list[str], what: str) -> str:
    """The known name that `text` means. Raises WorkspaceError that lists the nearest."""

    def bare(name: str) -> str:
        return "".join(name.casefold().replace("sigma", "σ").split())

    found = [name for name in known if name == text] or [name for name in known if bare(name) == bare(text)]
    if len(found) != 1:
        near = difflib.get_close_matches(text, known, 3, 0.5)
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        raise WorkspaceError(f"{what} of {FORM} must be one of {', '.join(known)}; got {text!r}{hint}")
    return found[0]
