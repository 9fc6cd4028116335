"""The model in service, for `geoloc locate`: answers from its registered files, not from build/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from geoloc.files import read_json
from geoloc.localizers.by_class.cells import class_localizers
from geoloc.localizers.by_class.methods import ClassMethod, product_method
from geoloc.localizers.served import COMPONENTS, FACTS, GRAPH, INDEX, LAYER_GRAPH, PARTITIONS, Served
from geoloc.localizers.settings import LocalizerSettings
from geoloc.models.graph import Graph
from geoloc.models.photo_network import GraphNetwork
from geoloc.partitions import load_partition
from geoloc.partitions.base import Partition
from geoloc.processors import network_threads
from geoloc.settings import parse
from orchestration.lineage.build import Build
from orchestration.locate.by_class import ByClass
from orchestration.locate.located import PhotoLocalizer
from orchestration.locate.question import Question
from orchestration.stores.champion import Version
from orchestration.workspace import Workspace, WorkspaceError

if TYPE_CHECKING:
    from geoloc.localizers.by_neighbour import NeighbourLocalizer
    from orchestration.locate.by_neighbour import ByNeighbour


@dataclass(frozen=True)
class Champion:
    """The model in service of a workspace."""

    workspace: Workspace
    version: Version

    def __str__(self) -> str:
        return f"the champion, {self.version} of {self.version.recipe} ({self.version.tags.get('geoloc.challenger')})"

    @property
    def evaluation(self) -> Path:
        """The evaluation that was logged with it."""
        return self.workspace.mlflow / "artifacts" / self.version.run_id / "artifacts"

    def answers(self, question: Question) -> bool:
        """Whether its registered files suffice for a question; other questions need the build that they are from."""
        return (
            question.method in ("class", "nn", "knn")
            and question.model == "classifier"
            and not (question.level or question.references or question.combine == "overlay")
            and (question.method == "class" or (self.version.folder / INDEX).is_dir())
        )

    def build(self) -> Build | None:
        """The build that it is from, if that is still the one in build/; else None."""
        build = Build(self.workspace, self.version.recipe)
        record = build.record("evaluation")
        if record is None or record.mlflow_run != self.version.run_id:
            return None
        made = {
            name: build.record(name) for name in record.inputs if name in ("partition", "classifier", "index")
        }
        same = all(one is not None and one.content == record.inputs[name] for name, one in made.items())
        return build if same and not build.settings.changes(record.settings, ("localizers",)) else None

    def partitions(self) -> dict[str, Partition]:
        """Its partitions by name, the main one first."""
        names = read_json(self.version.folder / FACTS, dict)["partitions"]
        return {name: load_partition(self.version.folder / PARTITIONS / name) for name in names}

    def open(self, question: Question) -> PhotoLocalizer:
        """What answers a question that it `answers`. Raises WorkspaceError if its files are not those that were
        promoted, or do not have what the question names."""
        self.version.require_whole()
        served = Served.open(self.version.folder)
        localizers = parse(
            LocalizerSettings,
            {key: served.facts[key] for key in ("crops", "batch_size", "k", "m")}
            | {"answers": [served.facts["answer"]], "sigmas": [served.facts["sigma"]]},
        )
        if question.method == "class":
            method = self._by_class(served, question)
            return ByClass(served.network, served.partitions, method, served.calibration, localizers, None)
        return self._by_neighbour(served, localizers, question)

    def _by_class(self, served: Served, question: Question) -> ClassMethod:
        name, answer, shown = served.facts["model_name"], served.facts["answer"], question.alternatives
        if question.combine:
            if len(served.partitions) < 2:
                raise WorkspaceError(
                    f"--combine {question.combine} needs at least two partitions; {self} has "
                    f"{', '.join(served.partitions)}"
                )
            return product_method(served.partitions, answer, name, shown)
        chosen = question.partition or next(iter(served.partitions))
        if chosen not in served.partitions:
            raise WorkspaceError(f"--partition must be one of {', '.join(served.partitions)}; got {chosen}")
        return ClassMethod(
            dict(class_localizers(served.partitions, (answer,), name, shown))[chosen], (chosen,)
        )

    def _by_neighbour(self, served: Served, settings: LocalizerSettings, question: Question) -> ByNeighbour:
        # Only here: FAISS takes a second to import.
        from geoloc.localizers.by_neighbour import DensityLocalizer, NearestLocalizer
        from geoloc.retrieval.index import ReferenceIndex
        from geoloc.retrieval.pca import Pca
        from orchestration.assets.photo_embedder import PhotoEmbedder
        from orchestration.locate.by_neighbour import ByNeighbour
        from orchestration.locate.references import voting

        folder = self.version.folder
        layer, components = folder / LAYER_GRAPH, folder / COMPONENTS
        graph = layer if layer.is_file() else folder / GRAPH
        network = GraphNetwork(Graph.open(graph, network_threads()))
        pca = Pca.load(components) if components.is_file() else None
        index, name = ReferenceIndex.load(folder / INDEX), served.facts["model_name"]
        localizer: NeighbourLocalizer
        if question.method == "nn":
            localizer = NearestLocalizer(index, name, question.alternatives)
        else:
            localizer = DensityLocalizer(
                index,
                voting(question, settings, len(index)),
                settings.m,
                settings.sigmas[0],
                model_name=name,
                alternatives=question.alternatives,
            )
        return ByNeighbour(PhotoEmbedder(network, pca, graph, _no_torch), localizer, settings.batch_size)

    def refuse(self, question: Question) -> NoReturn:
        """Raise WorkspaceError for a question that it cannot answer."""
        asked: dict[str, Any] = {
            "--method": question.method if question.method not in ("class", "nn", "knn") else None,
            "--model": question.model if question.model != "classifier" else None,
            "--level": question.level,
            "--combine": question.combine if question.combine == "overlay" else None,
            "--references": " ".join(question.references) or None,
        }
        options = ", ".join(f"{option} {value}" for option, value in asked.items() if value)
        options = options or f"--method {question.method} (it has no index)"
        raise WorkspaceError(
            f"{self} does not answer {options}, and its build is no longer in build/{self.version.recipe}; ask a build "
            f"with: --recipe {self.version.recipe}"
        )


def _no_torch() -> Any:
    raise ValueError("a registered model has no torch network")
