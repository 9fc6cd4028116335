"""`geoloc retrieval`: R@k or mAP of embeddings on a published retrieval collection."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestration.commands.common import counter, json_text, open_workspace
from orchestration.commands.parsing import add_command
from orchestration.errors import UsageError

LAYOUTS = ("cars-196", "cub-200-2011", "stanford-online-products", "roxford5k", "rparis6k", "holidays")
MODELS = ("classifier", "backbone", "metric")


def add(subparsers: argparse._SubParsersAction) -> None:
    """Add the command and its options."""
    parser = add_command(
        subparsers, "retrieval", "measure embeddings on a published retrieval collection",
        "  geoloc retrieval cars-196 ~/cars196 --recipe revisiting_r --model metric\n"
        "  geoloc retrieval roxford5k ~/roxford5k --features siamac.npy --ids siamac.txt\n"
        "  geoloc retrieval stanford-online-products ~/sop --features clip.parquet --json\n\n"
        "FOLDER is as the collection is distributed. Images by class (Cars-196, CUB-200-2011, Stanford Online\n"
        "Products) give R@k: the share of images with one of their class among the k most similar others. Ties count\n"
        "as wrong. Revisited Oxford and Paris give mAP and mP@k, easy, medium and hard; Holidays gives mAP.\n"
        "A features file is .parquet (a column of ids, a column of lists or a column a dimension), or .npy with the\n"
        "ids of its rows in a text file, a line each. An id is an image's path below FOLDER, its file name, or that\n"
        "without ending. --recipe embeds the images with a built network, as it embeds photos: by their centre crop.",
        run,
    )  # fmt: skip
    parser.add_argument("layout", metavar="LAYOUT", choices=LAYOUTS, help=", ".join(LAYOUTS))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the collection")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--features", type=Path, metavar="FILE", help="embeddings that another program made")
    source.add_argument("--recipe", default=argparse.SUPPRESS, help="a built recipe of the workspace")
    parser.add_argument("--ids", type=Path, metavar="FILE", help="ids of .npy (default: its name with .txt)")
    parser.add_argument(
        "--model", choices=MODELS, help="which of the recipe's networks (default: classifier)"
    )
    parser.add_argument(
        "--part", choices=("test", "train"), help="images by class: which part is asked (default: test)"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable table")


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    by_class = options.layout in LAYOUTS[:3]
    if options.part and not by_class:
        raise UsageError(f"--part is of images by class; {options.layout} has queries and a database")
    if options.ids and not options.features:
        raise UsageError("--ids belongs to --features")
    if options.ids and options.features.suffix.lower() != ".npy":
        raise UsageError(f"--ids belongs to .npy; {options.features.name} must have its ids itself")
    if options.model and options.features:
        raise UsageError("--model names a network of a recipe; --features has embeddings of one already")
    part = options.part or "test"
    if options.features:
        # Only now, with the options checked: pandas takes seconds to import.
        from orchestration.results.retrieval import measure_features

        found = measure_features(options.layout, options.folder, part, options.features, options.ids)
    else:
        workspace = open_workspace(options, tracks=False)
        from orchestration.lineage.build import Build
        from orchestration.results.retrieval import measure_recipe

        build = Build(workspace, options.recipe)
        with counter("images embedded") as bar:

            def tell(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            model = options.model or "classifier"
            found = measure_recipe(options.layout, options.folder, part, build, model, tell)
    print(json_text(found.to_dict()) if options.json else found)
