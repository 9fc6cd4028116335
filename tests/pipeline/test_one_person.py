"""A folder of photos by one person: the README's commands end in a report that says what it cannot show."""

from __future__ import annotations

import json

import yaml

from orchestration.cli import main
from orchestration.plan.chain import output_folder
from orchestration.workspace import Workspace
from tests.raw_exif import angle, dms, photo, taken


def test_the_commands_of_the_readme_end_in_a_report(tmp_path, capsys):
    mine, root = tmp_path / "Pictures", tmp_path / "w"
    for i in range(30):  # ten trips of three photos
        file = mine / f"album {i % 2}" / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        place = dms("N", angle(10 + 5 * (i // 3)), "E", angle(20, 6 * (i % 2)))
        file.write_bytes(photo(i, gps=place, exif=taken(f"2019:{1 + i // 3:02d}:03 10:{i:02d}:00")))
    assert main(["init", str(root)]) == 0
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["model"] = {"backbone": "squeezenet1_1", "resize_short_side": 32, "image_size": 32}  # quick
    params["training"]["epochs"] = 2
    params["evaluation"] = {"resamples": 50, "explained": 0}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    to = ["--workspace", str(root)]
    assert main([*to, "ingest", "folder", str(mine), "--photographer", "me"]) == 0
    assert "one person, so 10 trips are held out" in capsys.readouterr().out
    assert main([*to, "build"]) == 0, capsys.readouterr()
    report = json.loads(
        (output_folder(Workspace.open(root), "default", "report") / "report.json").read_text()
    )
    assert "nothing about photos by other people" in report["warnings"][0]
    assert report["evaluation"]["unit"] == "trips"
    assert sum(row["trips"] for row in report["splits"] if row["split"] != "unused") == 10
    assert all(check["passed"] for check in report["checks"] if check["name"] == "photographer_disjoint")
