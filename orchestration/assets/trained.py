"""A build's trained classifier, checked against its partitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from geoloc.models.classifier import Classifier, load_model
from orchestration.assets.inputs import cell_counts
from orchestration.lineage.record import Lineage
from orchestration.plan.chain import MODEL_FILE, lineage_path, output_folder
from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


def load_trained(workspace: Workspace, recipe: str, partitions: Mapping[str, Partition]) -> Classifier:
    """The recipe's classifier, which must have been trained on these partitions, those of its partition stage.

    Raises WorkspaceError, which says what to build, where it was trained on others, and WeightsError for a damaged
    file.
    """
    network = load_model(output_folder(workspace, recipe, "classifier") / MODEL_FILE)
    reason = ""
    try:
        network.check_heads(cell_counts(partitions))
    except ValueError as error:
        reason = str(error).rpartition(":")[0]  # what follows is advice for who writes code
    # Cells of equal number are other cells once photos or settings have changed.
    trained, cut = (Lineage.read(lineage_path(workspace, recipe, s)) for s in ("classifier", "partition"))
    if not reason and trained and cut and trained.inputs.get("partition") != cut.content:
        reason = "the partition was built again since"
    if reason:
        raise WorkspaceError(
            f"the classifier of {recipe} was not built for its partitions: {reason}; "
            f"build it again with: geoloc build --recipe {recipe}"
        )
    return network
