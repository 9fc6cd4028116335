"""The code of a served model. MLflow stores this file with each model and runs it to load one; no pickle is made."""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel

from geoloc.localizers.served import Served


class PhotoLocator(PythonModel):
    """Photos to places. See geoloc.localizers.served for what it takes and returns."""

    def load_context(self, context: Any) -> None:
        """Open the packed build, the model's only artefact."""
        self.build = Served.open(context.artifacts["build"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row of answers for each row of the column `photo`."""
        asked = params or {}
        return self.build.locate(
            model_input["photo"].tolist(), asked.get("method", "class"), int(asked.get("alternatives", 5))
        )


mlflow.models.set_model(PhotoLocator())
