"""The progress of a training, for people and for MLflow: shared by the stages that train."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from orchestration.run.stage import StageRun
from orchestration.stores.tracking import Tracker


def teller(
    run: StageRun, tracker: Tracker, curves: Collection[str], told: Mapping[str, str], of: str = ""
) -> Callable[[dict[str, Any]], None]:
    """A callback for the progress of a training.

    Measures of an epoch whose names end in one of `curves` go to MLflow (those of one head have its name as a prefix);
    `told` are the formats of those in the line of an epoch, by name. `of` names the network, where a stage
    trains several.
    """
    prefix, title = (f"{of}/", f"{of}: ") if of else ("", "")

    def log_metrics(values: Mapping[str, Any], step: int) -> None:
        known = {f"{prefix}{name}": value for name, value in values.items() if value is not None}
        tracker.metrics(known, step)

    def tell(event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "message":
            run.log(title + event["message"])
        elif kind == "features":
            if event["done"] == event["total"]:
                run.log(f"features of {event['total']} photos, {event['photos_per_second']:.0f} photos/s")
        elif kind == "step":
            log_metrics(
                {"step_loss": event["loss"], "photos_per_second": event["photos_per_second"]}, event["step"]
            )
        elif kind == "epoch":
            measures = {name: value for name, value in event.items() if name.endswith(tuple(curves))}
            log_metrics(measures, event["epoch"])
            formats = {"loss": "loss {:.3f}", **told, "photos_per_second": "{:.0f} photos/s"}
            parts = [
                text.format(event[name]) for name, text in formats.items() if event.get(name) is not None
            ]
            run.log(f"{title}epoch {event['epoch']}: {', '.join(parts)}{' *' if event.get('best') else ''}")

    return tell
