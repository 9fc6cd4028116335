"""Downloads: photos a second from a server on loopback, asked for, checked and stored, beside the client alone.

    python benchmarks/downloads.py [--photos 4000] [--side 128] [--rounds 3]

Every row is of one process over the same photos, one after the other in each round, so that the ratios hold on a loaded
machine too; CPU time is without the server's, which is another process. The target: 1,000 small photos a second read,
checked and stored on two cores. It is not reached. The limit: CPU time, most of which holds the lock of one Python
process, so a second photos are about 1000 / (CPU ms a photo), whatever the number of cores. With four other jobs on the
two cores that was 2.9 to 3.1 ms with the downloads, of which 2.7 are for checking and storing.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import aiohttp
import numpy as np
from PIL import Image

from geoloc.photos.decoding import check_and_normalise
from geoloc.photos.downloads.fetch import Fetcher
from geoloc.photos.downloads.spool import Spool
from geoloc.photos.ingest import ingest
from geoloc.photos.settings import DownloadSettings, IngestSettings
from geoloc.photos.sources import open_source

KEY = b"a key of the benchmark"
CONNECTIONS = 32

# In a process of its own, as a server is: the photos by number, from memory.
SERVER = """
import sys
from pathlib import Path
from aiohttp import web
photos = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
async def give(request):
    return web.Response(body=photos[int(request.match_info["number"])], content_type="image/jpeg")
async def main():
    app = web.Application()
    app.router.add_get("/{number}.jpg", give)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
import asyncio
asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=4000)
    parser.add_argument("--side", type=int, default=128, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="geoloc-downloads-") as name:
        folder = Path(name)
        size = write_photos(folder / "photos", options.photos, options.side)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(folder / "photos")], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            root = f"http://127.0.0.1:{int(server.stdout.readline())}"
            measure(folder, [f"{root}/{i}.jpg" for i in range(options.photos)], options.rounds, size)
        finally:
            server.terminate()
            server.wait()


def measure(folder: Path, urls: list[str], rounds: int, size: int) -> None:
    write_table(folder / "photos.csv", urls, folder / "photos")
    check_and_normalise(
        (folder / "photos" / "000000.jpg").read_bytes()
    )  # imports scipy, which takes a second
    seconds: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    for number in range(rounds):
        for name, work in (
            ("client alone (aiohttp)", partial(raw, urls)),
            ("asked for and spooled", partial(spooled, folder / f"spool{number}", urls)),
            ("from disk: checked and stored", partial(from_disk, folder, number)),
            ("asked for, checked and stored", partial(whole, folder, number)),
        ):
            begin, cpu = time.perf_counter(), time.process_time()
            work()
            seconds.setdefault(name, []).append(time.perf_counter() - begin)
            busy.setdefault(name, []).append(time.process_time() - cpu)
    print(f"{len(urls):,} photos of {size / len(urls) / 1000:.1f} kB, {CONNECTIONS} connections\n")
    print(f"{'':<32} {'photos/s':>9} {'of the client':>14} {'rounds':>13} {'CPU ms/photo':>13}")
    client = seconds["client alone (aiohttp)"]
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(client, taken, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        rate, cpu = len(urls) / statistics.median(taken), 1000 * statistics.median(busy[name]) / len(urls)
        print(f"{name:<32} {rate:>9.0f} {statistics.median(ratios):>14.2f} {spread:>13} {cpu:>13.2f}")
    print(f"\nthe limit is the CPU of one process: {1000 / cpu:.0f} photos/s at {cpu:.2f} ms a photo")


def raw(urls: list[str]) -> None:
    """The client, with nothing around it."""

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:

            async def one(url: str) -> None:
                async with session.get(url) as response:
                    await response.read()

            for start in range(0, len(urls), 512):
                await asyncio.gather(*map(one, urls[start : start + 512]))

    asyncio.run(run())


def settings() -> DownloadSettings:
    return DownloadSettings(connections=CONNECTIONS, per_host=CONNECTIONS)


def spooled(folder: Path, urls: list[str]) -> None:
    with Fetcher(settings(), IngestSettings().max_file_bytes) as fetcher:
        spool = Spool(folder)
        for start in range(0, len(urls), 512):
            part = spool.part()
            fetcher.ask(urls[start : start + 512], part.add).result()
            part.hold()
            part.release()


def from_disk(folder: Path, number: int) -> None:
    source = open_source("table", folder / "photos.csv", photos=folder / "photos")
    took_in = ingest(folder / f"disk{number}", source, source="disk", photographer_key=KEY)
    assert took_in.quarantined == {}, took_in


def whole(folder: Path, number: int) -> None:
    pool = folder / f"pool{number}"
    source = open_source(
        "urls", folder / "photos.csv", pool=pool, spool=folder / f"whole{number}", download=settings()
    )
    took_in = ingest(pool, source, source="urls", photographer_key=KEY)
    assert took_in.quarantined == {}, took_in


def write_photos(folder: Path, count: int, side: int) -> int:
    """Smooth noise as JPEG: compresses as a photo does. Returns the bytes of all."""
    folder.mkdir()
    random = np.random.default_rng(0)
    size = 0
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        size += (folder / f"{i:06d}.jpg").write_bytes(buffer.getvalue())
    return size


def write_table(path: Path, urls: list[str], photos: Path) -> None:
    rows = [f"{i},{url},{i:06d}.jpg,{1 + i % 80},{i % 170}" for i, url in enumerate(urls)]
    path.write_text("\n".join(["photo_id,url,file,latitude,longitude", *rows]) + "\n")


if __name__ == "__main__":
    main()
