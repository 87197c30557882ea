"""Two checkpoints compared from files, against reading the same files and doing nothing."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Duel, Work
from spinscape.merging.comparing import compare

__all__ = ["duels", "print_peak", "reading"]

LIMIT = 2**30  # bytes of anonymous memory


def duels(gigabytes: float = 4.0) -> list[Duel]:
    """List the rows, for two checkpoints of so many GB (10⁹ bytes) each, in a temporary folder."""
    return [row for dtype in ("F32", "BF16") for row in reading(gigabytes, dtype)]


def reading(gigabytes: float, dtype: str, tile: int = 2**22) -> list[Duel]:
    """Compare, against reading the same files in one thread, and in as many as we use.

    Parameters
    ----------
    tile : int
        Entries that are repeated throughout a checkpoint, which is what gives the known answer.
    """
    setting = _Setting(gigabytes, dtype, tile)

    def ours() -> Work:
        paths = setting.paths
        return lambda: compare(*paths)

    def peer(threads: int) -> Work:
        setting.paths  # noqa: B018  # written before the clock runs
        return lambda: setting.read(threads)

    def row(threads: int, wanted: float | None) -> Duel:
        return Duel(
            f"two checkpoints of {gigabytes:g} GB, {dtype}, {len(setting.shards)} shards each",
            f"reading alone, {threads} thread{'s' * (threads > 1)}",
            ours,
            lambda: peer(threads),
            setting.check,
            wanted=wanted,
            repeats=5,
            note=setting.told,
        )

    return [row(1, 0.5), row(torch.get_num_threads(), 0.5)]


class _Setting:
    """Two checkpoints in shards, of which one tensor takes a third."""

    def __init__(self, gigabytes: float, dtype: str, tile: int) -> None:
        self.bytes = round(gigabytes * 1e9)
        self.kind, self.tile = dtype, tile
        width = {"F32": 4, "BF16": 2}[dtype]
        tiles = max(4, self.bytes // (tile * width))
        large = tiles // 3
        layers = {f"layers.{i}.weight": 1 for i in range(tiles - large)}
        self.tensors = {"embed.weight": large, **layers}
        names = list(self.tensors)
        cuts = [
            0,
            1,
            *range(1 + -(-len(layers) // 3), len(names), -(-len(layers) // 3)),
            len(names),
        ]
        pairs = pairwise(cuts)
        self.shards = {f"{i}.safetensors": names[a:b] for i, (a, b) in enumerate(pairs)}
        self.width = width
        generator = torch.Generator().manual_seed(0)
        torch_dtype = {"F32": torch.float32, "BF16": torch.bfloat16}[dtype]
        first = torch.randn(tile, generator=generator)
        second = 0.7 * first + torch.randn(tile, generator=generator)
        self.tiles = first.to(torch_dtype), second.to(torch_dtype)

    @cached_property
    def paths(self) -> tuple[Path, Path]:
        """Both folders, written when first asked for."""
        self._folder = tempfile.TemporaryDirectory(prefix="spinscape-comparing-")
        folder = Path(self._folder.name)
        free = shutil.disk_usage(folder).free
        if free < 2.2 * self.bytes:
            raise RuntimeError(f"{folder}: {free / 1e9:.1f} GB free; two checkpoints do not fit")
        for name, values in zip("ab", self.tiles, strict=True):
            self._write(folder / name, values.view(torch.uint8).numpy().tobytes())
        return folder / "a", folder / "b"

    def _write(self, folder: Path, data: bytes) -> None:
        folder.mkdir()
        for shard, names in self.shards.items():
            header, end = {}, 0
            for name in names:
                start, end = end, end + self.tensors[name] * len(data)
                shape = [self.tensors[name], self.tile]
                header[name] = {"dtype": self.kind, "shape": shape, "data_offsets": [start, end]}
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            with (folder / shard).open("wb") as file:
                file.write(len(text).to_bytes(8, "little") + text)
                for _ in range(sum(self.tensors[name] for name in names)):
                    file.write(data)
        places = {name: shard for shard, names in self.shards.items() for name in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    def read(self, threads: int) -> None:
        """Read all bytes of both, 1 MiB at a time, the fastest of the sizes tried."""
        files = [path / shard for shard in self.shards for path in self.paths]
        parts = [
            (file, start, start + 2**26)
            for file in files
            for start in range(0, file.stat().st_size, 2**26)
        ]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_read, parts))

    def check(self) -> None:
        """Overlap and sign consistency are those of one tile."""
        found = compare(*self.paths)
        x, y = (values.double() for values in self.tiles)
        overlap = float(x @ y / (x.norm() * y.norm()))
        same = float(((x > 0) == (y > 0)).double().mean())
        np.testing.assert_allclose(found["whole_overlap"], overlap, rtol=1e-9)
        np.testing.assert_allclose(found["whole_ssr"], same, rtol=1e-12)

    def told(self) -> str:
        """Anonymous memory, of a process that compares and nothing else."""
        code = f"import benchmarks.comparing as b; b.print_peak(*{[*map(str, self.paths)]})"
        root = str(Path(__file__).parents[1])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        before, peak = map(int, done.stdout.split())
        verdict = "below" if peak < LIMIT else "ABOVE"
        largest = max(self.tensors.values()) * self.tile * self.width
        return (
            f"files in the page cache; largest tensor {largest / 2**30:.2f} GiB; anonymous memory "
            f"{peak / 2**20:.0f} MiB at most ({before / 2**20:.0f} before), {verdict} "
            f"{LIMIT / 2**30:g} GiB; the peak beside it counts mapped pages"
        )


def _read(part: tuple[Path, int, int]) -> None:
    path, start, stop = part
    buffer = memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while start < stop and (got := file.readinto(buffer)):
            start += got


def print_peak(path_a: str, path_b: str) -> None:
    """Print anonymous memory before, and its peak while two checkpoints are compared (Linux)."""
    seen, done = [_anonymous()], threading.Event()

    def sample() -> None:
        while not done.wait(0.005):
            seen.append(_anonymous())

    sampler = threading.Thread(target=sample)
    sampler.start()
    compare(path_a, path_b)
    done.set()
    sampler.join()
    print(seen[0], max(seen))


def _anonymous() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])
