"""A build's trained classifier, checked against its partitions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from geoloc.models.classifier import Classifier, load_model
from orchestration.assets.data import cell_counts
from orchestration.chain import MODEL_FILE
from orchestration.workspace import WorkspaceError

if TYPE_CHECKING:
    from geoloc.partitions.base import Partition


def load_trained(folder: Path, partitions: Mapping[str, Partition], recipe: str) -> Classifier:
    """The classifier in `folder`, a classifier stage's output, which must have a head for each of the partitions.

    Raises WorkspaceError, which says what to build, where heads and partitions do not fit, and WeightsError for a
    damaged file.
    """
    network = load_model(folder / MODEL_FILE)
    try:
        network.check_heads(cell_counts(partitions))
    except ValueError as error:
        reason = str(error).rpartition(":")[0]  # what follows is advice for who writes code
        raise WorkspaceError(
            f"the classifier of {recipe} was not built for its partitions: {reason}; "
            f"build it again with: geoloc build --recipe {recipe}"
        ) from None
    return network
