"""What killed builds left behind: temporary files in build/, and the scratch of stages that need it no more."""

from __future__ import annotations

import shutil
from collections.abc import Collection

from geoloc.files import remove_temporary
from orchestration.lineage.build import Build


def sweep(build: Build, up_to_date: Collection[str]) -> None:
    """Remove temporary files of all recipes, and the scratch of these stages; other stages resume from theirs.

    Call it with the workspace's lock held: nobody else is writing then.
    """
    workspace = build.workspace
    for folder in (workspace.root, workspace.root / ".geoloc", workspace.build):
        remove_temporary(folder)
    for pattern in ("*/", "*/*/"):
        for folder in workspace.build.glob(pattern):
            remove_temporary(folder)
    for stage in up_to_date:
        shutil.rmtree(workspace.scratch / build.name(stage), ignore_errors=True)
