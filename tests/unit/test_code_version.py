"""What counts as the code of a stage: its own syntax and the project's modules that it imports, nothing else."""

from __future__ import annotations

import pandas as pd

from orchestration.assets.photos import quarantine_reasons
from orchestration.lineage.record import _code_hash, code_modules


def test_comments_docstrings_and_layout_do_not_count_and_code_does(tmp_path):
    def hashed(text: str) -> str:
        file = tmp_path / "module.py"
        file.write_text(text)
        return _code_hash(file)

    plain = hashed("def double(x):\n    return 2 * x\n")
    assert hashed('"""Doc."""\ndef double(x):\n    """Twice x."""\n    return (2 * x)  # note\n') == plain
    assert hashed("def double(x):\n    return 3 * x\n") != plain


def test_a_stage_counts_what_it_imports_directly_or_not():
    modules = code_modules("orchestration.assets.index")
    assert {"geoloc.retrieval.index", "geoloc.retrieval.factory", "geoloc.sphere"} <= set(modules)
    assert not [
        name for name in modules if name.startswith(("geoloc.reports", "orchestration.graph.headless"))
    ]


def test_a_kept_photo_is_not_counted_as_turned_away():
    quarantine = pd.DataFrame(
        {"reason": ["bad_time", "bad_time", "zero_coordinates"], "severity": ["field", "field", "photo"]}
    )
    counted = quarantine_reasons(quarantine).set_index("reason")["count"].to_dict()
    assert counted == {"bad_time (field left out, photo kept)": 2, "zero_coordinates": 1}
