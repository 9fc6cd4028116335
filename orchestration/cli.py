"""The command `geoloc`. Parsing only: each command imports what it needs when it runs, so `--help` is instant."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestration.commands import common as commands
from orchestration.commands import settings as settings_command
from orchestration.locate.question import COMBINATIONS, LEVELS, METHODS, MODELS

DESCRIPTION = "Tell where a photo was taken, and keep the system that can do so honest for years."

EXAMPLES = """\
examples:
  geoloc build                                    build the chain of this workspace, photos to report
  geoloc build --recipe im2gps3k --only splits    one stage of one recipe
  geoloc locate photo.jpg --map where.html        where was this taken, and why
  geoloc claims                                   do the papers' findings hold here
  geoloc compare fine boxes kmeans                which way to cut the Earth is best
  geoloc audit report                             what made this report
  geoloc init ~/holidays                          a new workspace for photos of your own
  geoloc --workspace ~/holidays ingest folder ~/Pictures --photographer me
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 it failed, 2 it was called wrongly."""
    options = make_parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except KeyboardInterrupt:
        print("geoloc: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from orchestration.errors import UsageError, is_for_users

        if options.debug or not is_for_users(error):
            raise
        print(f"geoloc: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(prog="geoloc", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=_HELP)
    parser.add_argument("--workspace", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    parser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for add in (
        _init,
        _sample,
        _ingest,
        _build,
        _locate,
        _claims,
        _compare,
        _audit,
        settings_command.add,
        _ui,
    ):
        add(subparsers)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser whose errors come after the usage line and end with 2, as everywhere; no abbreviated options."""

    def __init__(self, **keywords: object) -> None:
        super().__init__(allow_abbrev=False, **keywords)  # type: ignore[arg-type]


_HELP = argparse.RawDescriptionHelpFormatter


def _add(
    subparsers: argparse._SubParsersAction, name: str, help: str, examples: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=_HELP,
    )
    # Also after the command, where people write it; SUPPRESS keeps the value given before it.
    parser.add_argument(
        "--workspace", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="default: this folder"
    )
    return parser


def _init(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "init", "make a workspace: a folder under git and DVC for one collection of photos",
        "  geoloc init ~/holidays\n  geoloc init ~/im2gps3k --note 'Im2GPS3k is a published test set'",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--note", default="", help="what the photos are; shown at the top of every report")
    parser.set_defaults(run=commands.init)


def _sample(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "sample", "generate photos of the sample planet, with known places, and put them into the pool",
        "  geoloc --workspace /tmp/w sample --photos 4000 --seed 7\n"
        "  geoloc sample --since 1 --photos 500            the collection grows: 500 new photos, as version 2\n"
        "  geoloc sample --photos 500 --folder pictures    only the files and their truth, no pool",
    )  # fmt: skip
    parser.add_argument(
        "--photos", type=_at_least(2), default=3500, metavar="N", help="how many (default: 3500)"
    )
    parser.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="S", help="another seed, other photos (default: 0)"
    )
    parser.add_argument(
        "--since", type=_at_least(1), metavar="VERSION",
        help="add the photos of the version after this one, by old and new photographers (default: make version 1); "
        "give the seed of the earlier versions",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="write the files here and leave the pool alone"
    )
    parser.add_argument(
        "--processes", type=_at_least(1), metavar="N", help="that draw (default: one a core); the photos are the same"
    )  # fmt: skip
    parser.set_defaults(run=commands.sample)


def _at_least(least: int) -> Callable[[str], int]:
    """A type of option: a whole number of at least `least`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "whole number"  # argparse shows it where the text is none
    return number


def _ingest(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "ingest", "add photos to the pool and record the new data version",
        "  geoloc ingest folder ~/Pictures --photographer me\n"
        "  geoloc ingest table photos.csv --photos pictures/ --column latitude=lat --column longitude=lon\n"
        "  geoloc ingest yfcc yfcc100m_dataset.bz2 --photos pictures/\n"
        "  geoloc ingest webdataset 'shards/*.tar'\n"
        "  geoloc ingest mp16 'mp16/*.msg'",
    )  # fmt: skip
    kinds = parser.add_subparsers(required=True, metavar="SOURCE", parser_class=_Parser)

    def kind(name: str, help: str, metavar: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = kinds.add_parser(
            name, help=help, description=help, formatter_class=_HELP
        )
        made.add_argument("path", metavar=metavar)
        made.add_argument("--workspace", type=Path, default=argparse.SUPPRESS, metavar="DIR")
        made.add_argument(
            "--source", help="the collection's name in the catalog (default: the name of the path)"
        )
        made.add_argument("--workers", type=int, default=0, help="decoding threads (default: one a core)")
        made.add_argument("--short-side", type=int, metavar="PX", help="store photos no larger than this")
        made.add_argument("--no-dvc", action="store_true", help="do not record the new data version")
        made.set_defaults(run=commands.ingest, kind=name)
        return made

    folder = kind("folder", "a folder of photos with EXIF GPS; its sub-folders are albums", "FOLDER")
    folder.add_argument("--photographer", help="who took them (default: the first folder below FOLDER)")
    table = kind("table", "a CSV or Parquet table plus a folder of photos", "TABLE")
    table.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="default: the table's own folder; 'none': no photos"
    )
    yfcc = kind("yfcc", "YFCC100M metadata, either layout, .tsv or .bz2", "FILE")
    yfcc.add_argument("--photos", type=Path, metavar="FOLDER", help="default: metadata only")
    tars = kind("webdataset", "a WebDataset tar set as img2dataset writes it", "TARS")
    shards = kind("mp16", "MP-16's msgpack shards", "SHARDS")
    for made in (table, tars, shards):
        made.add_argument(
            "--column", action="append", default=[], metavar="FIELD=NAME", help="a field's column name"
        )


def _build(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "build", "build what is out of date of a recipe, from photos to report",
        "  geoloc build\n  geoloc build --recipe im2gps3k\n  geoloc build --only splits partition",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", default="default", help="a file of recipes/ (default: params.yaml as it stands)"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="these stages and no others")
    parser.add_argument("--force", action="store_true", help="also what is up to date")
    parser.add_argument("--no-commit", action="store_true", help="leave dvc.lock alone (dvc repro uses this)")
    parser.set_defaults(run=commands.build)


def _locate(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "locate", "tell where photos were taken, and why",
        "  geoloc locate photo.jpg\n  geoloc locate *.jpg --method knn --json\n"
        "  geoloc locate photo.jpg --map where.html\n"
        "  geoloc locate photo.jpg --level street          which street, rather than which country?\n"
        "  geoloc locate photo.jpg --level country --abstain-below 0.5\n"
        "  geoloc locate photo.jpg --recipe multi --combine overlay\n\n"
        "Where the build has localizers.calibrate, confidences are scaled by what validation photos taught; where it\n"
        "has localizers.coverages, the cells that hold the photo so often are told, and outlined on the map.",
    )  # fmt: skip
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--method", choices=METHODS, default="class", help="default: class")
    parser.add_argument(
        "--model", choices=MODELS, default="classifier", help="by neighbour: whose embeddings"
    )
    parser.add_argument(
        "--alternatives", type=_at_least(1), default=5, metavar="N", help="how many to show (default: 5)"
    )
    parser.add_argument(
        "--partition",
        metavar="NAME",
        help="by class: over the cells of this partition (default: the main one)",
    )
    parser.add_argument(
        "--level",
        choices=LEVELS,
        help="by class: the point most probably within 1, 25, 200, 750 or 2500 km; its confidence is that probability",
    )
    parser.add_argument(
        "--combine",
        choices=COMBINATIONS,
        help="by class: all partitions of a build that has several, as a product (nested ones) or an overlay (any)",
    )
    parser.add_argument(
        "--abstain-below",
        type=float,
        metavar="CONFIDENCE",
        help="no answer for photos of a lower confidence, from 0 to 1",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable answers")
    parser.add_argument(
        "--map", type=Path, metavar="FILE", help="also draw the answers on an offline HTML map"
    )
    parser.set_defaults(run=commands.locate)


def _claims(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "claims", "test the published findings on whatever recipes are built",
        "  geoloc claims\n  geoloc claims --json claims.json\n"
        "  geoloc claims --role 'fine=default:[L]82C' --role 'coarse=wide:[L]12C'\n"
        "  geoloc claims --role 'coarse ceiling=multi:coarse'      a ceiling is of a partition, not a method\n\n"
        "A difference is in points of accuracy, with its 95 % interval over resampled photographers. By default\n"
        "only networks of equal splits, model and training are compared; what is printed says which roles are empty.",
    )  # fmt: skip
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="NAME=RECIPE:METHOD",
        help="who plays a role of the claims, several times for several (default: told from what is built)",
    )
    parser.add_argument("--test", default="test", help="the test set (default: test)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write roles and claims as JSON")
    parser.set_defaults(run=commands.claims)


def _compare(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "compare", "compare methods of several recipes on the same test photos",
        "  geoloc compare fine boxes triangles kmeans       each one's first method by class\n"
        "  geoloc compare 'default:[L]NN' 'default:[L]kNN σ=4' coarse\n"
        "  geoloc compare fine boxes --json\n\n"
        "Differences are from the first, in points of accuracy, with their interval over resampled photographers;\n"
        "better and worse stand where that leaves out 0. Intervals are not corrected for the number of comparisons.",
    )  # fmt: skip
    parser.add_argument(
        "methods",
        nargs="+",
        metavar="RECIPE[:METHOD]",
        help="a recipe's method; without METHOD its first by class",
    )
    parser.add_argument("--test", default="test", help="the test set (default: test)")
    parser.add_argument("--json", action="store_true", help="machine-readable tables")
    parser.set_defaults(run=commands.compare)


def _audit(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "audit", "tell what made an artefact: inputs, code, settings and runs, down to the photos",
        "  geoloc audit report\n  geoloc audit default/classifier --json\n  geoloc audit build/default/evaluation",
    )  # fmt: skip
    parser.add_argument(
        "artefact", help="a stage, RECIPE/STAGE, a path in build/, a content hash or a run id"
    )
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=commands.audit)


def _ui(subparsers: argparse._SubParsersAction) -> None:
    parser = _add(
        subparsers, "ui", "open the Dagster UI on this workspace's history (loopback only)",
        "  geoloc ui\n  geoloc ui --port 3001",
    )  # fmt: skip
    parser.add_argument("--port", type=int, default=3000)
    parser.set_defaults(run=commands.ui)


if __name__ == "__main__":
    sys.exit(main())
