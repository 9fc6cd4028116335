"""What the parts of cuda.py share: printed rows, times on a device, and the sample's photos."""

from __future__ import annotations

import json
import statistics
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from geoloc.photos.catalog import read_catalog

ROOT = Path(__file__).resolve().parent.parent
TOLD = 150
"""Characters of a warning or an error that are printed."""


@dataclass
class Rows:
    """Rows that are printed as they end: a name, what was found, and the seconds that it took.

    `device` is what is tried, "cuda" or, for a look at the script itself, "cpu"; `quick` asks for small sizes.
    """

    device: str
    quick: bool
    failed: list[str] = field(default_factory=list)
    warned: set[str] = field(default_factory=set)

    def title(self, text: str) -> None:
        print(f"\n== {text}", flush=True)

    def row(self, name: str, work: Callable[..., str], *arguments: Any) -> None:
        """Print what `work(*arguments)` returns. A row that raises is counted, and printed with the exception's last
        line; each warning is printed once."""
        started = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = work(*arguments)
            except Exception as error:
                found = (
                    "FAILED: " + traceback.format_exception_only(error)[-1].strip().splitlines()[-1][:TOLD]
                )
                frame = traceback.extract_tb(error.__traceback__)[-1]
                found += f"  ({Path(frame.filename).name}:{frame.lineno})"
                self.failed.append(name)
        print(f"{name:<58} {time.perf_counter() - started:7.2f} s  {found}", flush=True)
        for one in caught:
            text = " ".join(str(one.message).split())[:TOLD]
            if text not in self.warned:
                self.warned.add(text)
                print(f"{'':<10}warns: {text}", flush=True)

    def synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], rounds: int = 5, warm_up: int = 2) -> float:
        """The median time of `work`, by events on a GPU, after a warm-up."""
        for _ in range(warm_up):
            work()
        times = []
        for _ in range(rounds):
            self.synchronise()
            if self.device == "cuda":
                events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                events[0].record()
                work()
                events[1].record()
                torch.cuda.synchronize()
                times.append(events[0].elapsed_time(events[1]) / 1000)
            else:
                started = time.perf_counter()
                work()
                times.append(time.perf_counter() - started)
        return statistics.median(times)

    def peak_mb(self, work: Callable[[], Any]) -> float:
        """The most memory that torch had on the GPU during `work`, above what it had before; NaN on the CPU."""
        if self.device != "cuda":
            return float("nan")
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20


def sample_pool(folder: Path) -> Path:
    """The sample's pool, the data version of data.dvc, linked from the DVC remote inside the repository: the machine
    needs no DVC."""
    files = ROOT / "sample" / "files" / "md5"

    def stored(md5: str) -> Path:
        return files / md5[:2] / md5[2:]

    version = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]["md5"]
    for one in json.loads(stored(version).read_bytes()):
        path = folder / one["relpath"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(stored(one["md5"]))
    return folder


def sample_photos(pool: Path, train: int, held_out: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Photos of the sample to train on, and some by other photographers."""
    names = ("photo_id", "shard", "offset", "length", "latitude", "longitude", "photographer", "sha256")
    rows = read_catalog(pool, names)
    rows = rows[rows["shard"].notna() & rows["latitude"].notna()]
    whose = pd.util.hash_pandas_object(rows["photographer"].astype("str"), index=False).to_numpy() % 4
    parts = rows[whose > 0], rows[whose == 0]
    first, second = (
        part.iloc[:n].reset_index(drop=True) for part, n in zip(parts, (train, held_out), strict=True)
    )
    return first, second
