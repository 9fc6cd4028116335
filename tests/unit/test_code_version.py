"""What counts as the code of a stage: its own syntax and the library's modules that it calls, nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pandas as pd
import pytest

from geoloc.photos.quarantine import count_reasons
from orchestration.lineage.code import code_counts, code_hash, data_files, imported_modules
from orchestration.plan.chain import CHAIN, STAGES
from orchestration.plan.settings import BuildSettings

ROOT = Path(__file__).parents[2]


def modules_of(module: str) -> list[str]:
    return sorted(imported_modules(module, code_counts))


def test_comments_docstrings_and_layout_do_not_count_and_code_does():
    def hashed(text: str) -> str:
        return code_hash(ast.parse(text))

    plain = hashed("def double(x):\n    return 2 * x\n")
    assert hashed('"""Doc."""\ndef double(x):\n    """Twice x."""\n    return (2 * x)  # note\n') == plain
    assert hashed("def double(x):\n    return 3 * x\n") != plain


def test_a_stage_counts_what_it_imports_directly_or_not():
    modules = modules_of("orchestration.assets.index")
    assert {"geoloc.retrieval.index", "geoloc.retrieval.factory", "geoloc.sphere"} <= set(modules)


@pytest.mark.parametrize("stage", CHAIN, ids=lambda stage: stage.name)
def test_what_only_declares_draws_or_carries_is_no_code(stage):
    modules = modules_of(stage.module)
    assert stage.module in modules
    assert not [name for name in modules if name.rpartition(".")[2] == "settings"]
    assert not [name for name in modules if name.startswith("orchestration.") and ".assets." not in name]
    if stage.name != "report":
        assert not [name for name in modules if name.startswith("geoloc.reports")]


def test_features_of_first_weights_do_not_change_when_the_classifier_does():
    modules = set(modules_of(STAGES["features"].module))
    assert "geoloc.models.embedder" in modules
    assert not modules & {
        "geoloc.models.classifier",
        "geoloc.training.classification",
        "geoloc.partitions.base",
    }


@pytest.mark.parametrize("stage", CHAIN, ids=lambda stage: stage.name)
def test_a_stage_uses_no_settings_that_its_row_does_not_declare(stage):
    """Read off the syntax: `...settings.SECTION` in the modules that are the stage's own."""
    declared = {section.split(".")[0] for section in stage.sections} | {"recipe"}
    own = [name for name in modules_of(stage.module) if name.startswith("orchestration.assets.")]
    for name in own:
        tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text())
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith("settings")
        }
        assert used & set(BuildSettings.model_fields) <= declared, name


def test_the_templates_of_the_report_are_its_code():
    """A changed page is another report, and no other stage."""
    reports = ROOT / "geoloc" / "reports"
    templates = set(data_files(reports / "__init__.py"))
    assert reports / "templates" / "report.html.j2" in templates
    for stage in CHAIN:
        files = imported_modules(stage.module, code_counts).values()
        found = {data for file in files for data in data_files(file)}
        assert found == (templates if stage.name == "report" else set())


def test_a_kept_photo_is_not_counted_as_turned_away():
    quarantine = pd.DataFrame(
        {"reason": ["bad_time", "bad_time", "zero_coordinates"], "severity": ["field", "field", "photo"]}
    )
    counted = count_reasons(quarantine).set_index("reason")["count"].to_dict()
    assert counted == {"bad_time (field left out, photo kept)": 2, "zero_coordinates": 1}
