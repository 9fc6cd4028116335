"""Print the tables of the docs again: each block of a page is what a command printed.

A block is between two comments: the first holds the command, the second says `end`. What the command prints in a
workspace takes the block's place. Another comment names the recipes that must be built for it. `--check` changes
nothing and fails if a block is out of date.

    <!-- built: fine fine@1 kmeans -->
    <!-- geoloc compare fine kmeans -->
    <!-- end -->
    <!-- python benchmarks/sample_planet.py --sections 2 -->
    <!-- end -->

    python benchmarks/pages.py docs/where-by-class.md --build
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from geoloc.files import write_text
from orchestration.cli import main as geoloc

REPOSITORY = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^(<!-- (?P<command>(?:geoloc|python) .+?) -->\n).*?^(<!-- end -->)$", re.MULTILINE | re.DOTALL
)

BUILT = re.compile(r"^<!-- built: (.+?) -->$", re.MULTILINE)


def printed_again(page: str, run: Callable[[list[str]], str]) -> str:
    """Returns the page with each block printed again; `run` takes the words of a command and returns what it prints."""
    return BLOCK.sub(
        lambda block: f"{block[1]}\n{run(shlex.split(block['command'])).strip()}\n\n{block[3]}", page
    )


def recipes_of(page: str) -> list[str]:
    """The recipes, and trainings such as fine@1, that a page says its blocks are printed of, in order."""
    return list(dict.fromkeys(recipe for built in BUILT.findall(page) for recipe in built.split()))


def run_in(workspace: str) -> Callable[[list[str]], str]:
    """Runs commands in a workspace, those of geoloc or Python scripts of this repository; the print of scripts is
    verbatim text. Raises SystemExit if one fails."""

    def run(words: list[str]) -> str:
        program, *rest = words
        if program == "python":
            command = [sys.executable, *rest, "--workspace", str(Path(workspace).resolve())]
            done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
            failed, out = done.returncode, f"```text\n{done.stdout.strip()}\n```"
        else:
            caught = io.StringIO()
            with contextlib.redirect_stdout(caught):
                failed = geoloc(["--workspace", workspace, *rest])
            out = caught.getvalue()
        if failed:
            raise SystemExit(f"{shlex.join(words)} failed")
        return out

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the blocks of pages again; returns 1 if `--check` finds one that is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--workspace", default=".", help="where the recipes are built; default: here")
    parser.add_argument("--build", action="store_true", help="build what the pages need first")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    options = parser.parse_args(arguments)
    if not options.pages:
        parser.print_help()
    old = 0
    for page in options.pages:
        text = page.read_text(encoding="utf-8")
        for recipe in recipes_of(text) if options.build else ():
            if geoloc(["--workspace", options.workspace, "build", "--recipe", recipe]):
                return 1
        again = printed_again(text, run_in(options.workspace))
        print(
            f"{page}: {'as printed' if again == text else 'out of date' if options.check else 'printed again'}"
        )
        old += options.check and again != text
        if again != text and not options.check:
            write_text(page, again)
    return int(old > 0)


if __name__ == "__main__":
    raise SystemExit(main())
