"""Runs a Great Expectations suite from its JSON file on a data frame, in memory."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings as python_warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from orchestration.tables import markdown

MAX_SAMPLE = 10  # how many unexpected values an outcome shows


class QualityError(ValueError):
    """A suite could not be run: it is missing or malformed, or an expectation raised. It does not mean bad data."""


@dataclass(frozen=True)
class ExpectationOutcome:
    """What one expectation found. `description` states the rule that should hold, in plain words."""

    expectation: str  # Great Expectations type, such as expect_column_values_to_be_unique
    columns: tuple[str, ...]
    passed: bool
    severity: str  # critical, warning or info
    description: str
    observed: str  # the value seen, or how many rows of how many break the rule
    unexpected_count: int  # rows that break the rule; may be above 0 where the rule holds "mostly"
    sample: tuple[str, ...]  # up to MAX_SAMPLE of these values, with the id of their row


@dataclass(frozen=True)
class SuiteResult:
    """The outcomes of a suite, in its order. `passed`: no critical and no warning failed (info is only shown)."""

    suite: str
    passed: bool
    critical_failures: int
    warnings: int
    rows: tuple[ExpectationOutcome, ...]

    def summary(self) -> str:
        """One line: which rules are broken and by what, or that all hold."""
        broken = [row for row in self.rows if not row.passed]
        if not broken:
            return f"{self.suite}: all {len(self.rows)} expectations hold"
        told = "; ".join(
            f"{r.severity}: not true that {_lower_first(r.description)} ({r.observed})" for r in broken
        )
        return f"{self.suite}: {len(broken)} of {len(self.rows)} expectations fail: {told}"

    def markdown(self) -> str:
        """A Markdown table, failures first, for Dagster metadata and terminals."""
        rows = [
            (
                "ok" if row.passed else "**FAILS**",
                row.description,
                ", ".join(row.columns),
                row.severity,
                row.observed,
                "; ".join(row.sample),
            )
            for row in sorted(self.rows, key=lambda row: row.passed)
        ]
        return markdown(rows, ["", "rule", "columns", "severity", "observed", "examples"])


def run_suite(
    suite_file: Path, frame: pd.DataFrame, parameters: Mapping[str, Any] | None = None
) -> SuiteResult:
    """Run the Great Expectations suite of a JSON file on a data frame, in memory: no files, no network.

    The suite's `meta` may hold `parameters` (defaults of its $PARAMETER values; `parameters` overrides them)
    and `id_column` (shown beside unexpected values). `frame.attrs["details"]`, a mapping from column to text,
    is added to what was observed on that column.

    Raises QualityError for a suite that is missing or malformed, an unknown parameter, or an expectation that
    could not be computed, such as one on a column that the frame lacks.
    """
    written = read_suite(suite_file)
    name, meta = written["name"], written.get("meta") or {}
    values = dict(meta.get("parameters") or {})
    for key, value in (parameters or {}).items():
        if key not in values:
            raise QualityError(f"suite {name} has no parameter {key}; it has: {', '.join(values) or 'none'}")
        values[key] = value
    frame = frame.reset_index(drop=True)  # unexpected rows come back as labels: make them row numbers
    results = _validate(name, written["expectations"], frame, values)
    ids = frame[meta["id_column"]] if meta.get("id_column") in frame.columns else None
    details = frame.attrs.get("details", {})
    rows = tuple(
        _outcome(name, expectation, result, ids, details, values)
        for expectation, result in zip(written["expectations"], results, strict=True)
    )
    failed = [row.severity for row in rows if not row.passed]
    critical, warned = failed.count("critical"), failed.count("warning")
    return SuiteResult(name, critical + warned == 0, critical, warned, rows)


def read_suite(suite_file: Path) -> dict[str, Any]:
    """The suite's JSON, with what this module relies on checked. Raises QualityError for a file that is missing or is
    no suite."""
    if not suite_file.is_file():
        raise QualityError(
            f"there is no suite {suite_file}; geoloc init {suite_file.parents[1]} adds the missing ones"
        )
    try:
        written = json.loads(suite_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise QualityError(f"{suite_file} is not JSON: {error}") from error
    if not isinstance(written, dict) or not isinstance(written.get("name"), str):
        raise QualityError(f"{suite_file} is not a suite: it must be a mapping with a name")
    expectations = written.get("expectations")
    if not isinstance(expectations, list) or not expectations:
        raise QualityError(f"suite {written['name']} has no expectations, so it would pass whatever the data")
    for position, expectation in enumerate(expectations):
        if not isinstance(expectation, dict) or not isinstance(expectation.get("type"), str):
            raise QualityError(f"suite {written['name']}: expectation {position} has no type")
    return written


def _validate(
    name: str, expectations: list[dict[str, Any]], frame: pd.DataFrame, parameters: dict[str, Any]
) -> list[Any]:
    """The Great Expectations result of each expectation, in the order of the file."""
    # Read when Great Expectations is imported; it must not call home. Here and not at the top because the
    # import takes more than 5 s, which `geoloc --help` and every other stage would pay.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        import great_expectations as gx
    with _quiet():
        batch = _batch(name, frame)
        suite = gx.ExpectationSuite(name=name, expectations=_made(name, expectations))
        try:
            # SUMMARY gives rows by number. Asking for ids instead (unexpected_index_column_names) makes a
            # dict for every unexpected row: 21 s in place of 0.4 s for a million.
            results = batch.validate(
                suite,
                result_format={"result_format": "SUMMARY", "partial_unexpected_count": MAX_SAMPLE},
                expectation_parameters=parameters,
            ).results
        except gx.exceptions.SuiteParameterError as error:
            raise QualityError(f"suite {name}: {error}; give it a default in meta.parameters") from error
    by_position = {
        result.expectation_config.meta["position"]: result
        for result in results
        if result.expectation_config is not None
    }
    if sorted(by_position) != list(range(len(expectations))):
        raise QualityError(f"suite {name}: {len(by_position)} of {len(expectations)} expectations were run")
    return [by_position[position] for position in range(len(expectations))]


def _batch(name: str, frame: pd.DataFrame) -> Any:
    """The frame as a batch of a context that lives in memory only and shows and sends nothing."""
    import great_expectations as gx
    from great_expectations.data_context.types import base

    context = gx.get_context(
        mode="ephemeral",
        project_config=base.DataContextConfig(
            # The default config makes a temporary folder for a documentation site.
            store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            analytics_enabled=False,
            progress_bars=base.ProgressBarsConfig(globally=False),
        ),
    )
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset(name)
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})


def _made(name: str, expectations: list[dict[str, Any]]) -> list[Any]:
    """Expectation objects, each marked with its position: results come back in another order.

    Made one by one, because a suite made from the whole JSON logs an expectation of unknown type and goes on
    without it.
    """
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    made = []
    for position, expectation in enumerate(expectations):
        marked = {**expectation, "meta": {**(expectation.get("meta") or {}), "position": position}}
        try:
            made.append(ExpectationConfiguration(**marked).to_domain_obj())
        except Exception as error:  # whatever it is, the file is at fault: name the place
            raise QualityError(f"suite {name}: {_named(expectation)} is malformed: {error}") from error
    return made


def _outcome(
    suite: str,
    expectation: dict[str, Any],
    result: Any,
    ids: pd.Series | None,
    details: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> ExpectationOutcome:
    raised = _exception_messages(result.exception_info)
    if raised:
        raise QualityError(f"suite {suite}: {_named(expectation)} could not be computed: {'; '.join(raised)}")
    found = result.result or {}
    columns = _columns(expectation.get("kwargs") or {})
    bad = int(found.get("unexpected_count") or 0)
    values, rows = (
        found.get("partial_unexpected_list") or [],
        found.get("partial_unexpected_index_list") or [],
    )
    sample = [_plain(value) for value in values[:MAX_SAMPLE]]
    if ids is not None and len(rows) >= len(sample) and columns != (ids.name,):
        sample = [f"{ids.iloc[row]}: {value}" for row, value in zip(rows, sample, strict=False)]
    if "unexpected_count" in found:
        looked_at = int(found["element_count"]) - int(found.get("missing_count") or 0)
        observed = f"{bad:,} of {looked_at:,} rows"
        # A rule on nulls counts them as unexpected and not as missing; the other rules skip nulls.
        if found.get("missing_count"):
            observed += f" ({int(found['missing_count']):,} null)"
    elif found.get("partial_missing_list"):
        observed = f"missing: {', '.join(map(_plain, found['partial_missing_list']))}"
    else:
        observed = _plain(found.get("observed_value"))
    told = [details[column] for column in columns if column in details]
    description = str(expectation.get("description") or expectation["type"])
    # A rule names its parameters; its readers want their values.
    named = [f"{name} is {_plain(v)}" for name, v in parameters.items() if name in description.split()]
    return ExpectationOutcome(
        expectation=expectation["type"],
        columns=columns,
        passed=bool(result.success),
        severity=str(expectation.get("severity", "critical")),
        description=description,
        observed=", ".join([": ".join([observed, *told]), *named]),
        unexpected_count=bad,
        sample=tuple(sample),
    )


def _exception_messages(info: Any) -> list[str]:
    """Messages of what raised; Great Expectations gives one mapping, or one for each metric."""
    if not info:
        return []
    entries = [info] if "raised_exception" in info else list(info.values())
    return [str(e.get("exception_message")).strip() for e in entries if e.get("raised_exception")]


def _columns(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    several = kwargs.get("column_list") or kwargs.get("column_set") or ()
    return tuple(kwargs[key] for key in ("column", "column_A", "column_B") if key in kwargs) + tuple(several)


def _named(expectation: Mapping[str, Any]) -> str:
    kwargs = expectation.get("kwargs")
    columns = _columns(kwargs) if isinstance(kwargs, Mapping) else ()
    return f"{expectation['type']}({', '.join(columns)})"


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) and value % 1 else str(value)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Great Expectations' logging and warnings: what it finds comes back as values or QualityError."""
    # Each by name: some of its modules set a level of their own, which hides that of the package. Not by levels: to set
    # one empties the caches of all loggers, and there are hundreds.
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "great_expectations"]
    loggers = [logger for logger in map(logging.getLogger, names) if not logger.disabled]
    for logger in loggers:
        logger.disabled = True
    try:
        with python_warnings.catch_warnings():
            python_warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.disabled = False
