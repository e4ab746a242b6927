"""Indexing against rclip 3.3.0 from PyPI: the same photos, the same weights, the same run.

    python benchmarks/rclip.py [--photos 300] [--megapixels 0.25 12] [--runs 3] [--cache FOLDER]

Both run ViT-B-32-256 with the same random weights, which are as fast as trained ones: rclip as ONNX
files, exported as its own scripts/convert_model.py does and put where it looks for them, clipsearch
in its compiled runtime. Both are made before the clock starts, and both programs run as a person
would call them, on all cores, with their own defaults; thumbnails and metadata, which rclip does
not read, are in our time. rclip lives in a virtual environment of its own. It has no command that
only indexes: its smallest search, for one of the photos by its path, is in its time.

The two take turns, and the ratio is of the medians. The start is a run over a folder of one photo;
the rate without it is of the other photos. What is made once lies in the cache folder (about 3.5 GB
with 300 photos of 12 megapixels), so that a run that was broken off goes on from there.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from encoder_runtimes import random_large
from search_latency import make_photos

from clipsearch.config import available_cores, resolve
from clipsearch.encoders import compile_encoder
from clipsearch.library import Library
from clipsearch.vectors import Matrix

VERSION = "3.3.0"
# What torch's ONNX exporter imports; the project itself does not need it.
EXPORTER = ("onnx==1.23.2", "protobuf==7.36.2", "ml_dtypes==0.6.0")
MODEL_FOLDER = "ViT-B-32-256-datacomp_s34b_b86k"  # where rclip looks, below RCLIP_DATADIR
BARS = {0.25: 1.1, 12: 1.8}  # megapixels: times rclip's images/s
ENOUGH_PHOTOS = 200  # with fewer, most of the time is starting
NOISE_LEVELS = 6  # with quality 95 this makes files of 3 to 5 MB of 12 megapixels
LARGE_QUALITY = 95
_ONE_PROGRAM_S = 3600


@dataclass
class Run:
    """One indexing: wall seconds, and the seconds of computing of the process and its children."""

    wall_s: float
    cpu_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 12])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=resolve().cache_dir / "benchmarks")
    arguments = parser.parse_args()
    cache = arguments.cache.expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    peer = Peer(cache)
    ours = Ours(cache)
    peer.prepare(ours.weights)
    cores = available_cores()
    print(f"{cores} cores; both use all of them: rclip {cores} loader threads and ONNX Runtime")
    print(f"with {cores} threads, batches of 8; clipsearch {cores} decoder processes and OpenVINO")
    print(f"with {cores} threads, batches of 32. Load before the start: {_load()}")
    for megapixels in arguments.megapixels:
        compare(ours, peer, cache, megapixels, arguments.photos, arguments.runs)


def compare(ours: Ours, peer: Peer, cache: Path, megapixels: float, count: int, runs: int) -> None:
    """Runs both over the same photos in turn and prints what came out."""
    photos = gathered(cache, megapixels, count)
    sizes = [path.stat().st_size for path in photos.iterdir()]
    print(f"\n{count} photos of {megapixels:g} megapixels, {np.mean(sizes) / 1e6:.2f} MB each")
    programs: dict[str, Ours | Peer] = {"clipsearch": ours, f"rclip {VERSION}": peer}
    starts: dict[str, float] = {}
    times: dict[str, list[Run]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as temporary:
        single = Path(temporary) / "single"
        single.mkdir()
        shutil.copy(min(photos.iterdir()), single)
        for name, program in programs.items():
            program.index(single, Path(temporary))  # from the disk into memory
            starts[name] = program.index(single, Path(temporary)).wall_s
        for number in range(runs):
            for name, program in programs.items():
                run = program.index(photos, Path(temporary))
                times[name].append(run)
                found = len(program.vectors(Path(temporary))[0])
                if found != count:
                    sys.exit(f"{name} has vectors of {found} of {count} photos: no comparison")
                print(
                    f"  run {number + 1}  {name:<12} {run.wall_s:7.1f} s  "
                    f"{count / run.wall_s:6.2f} images/s  load {_load()}",
                    flush=True,
                )
        same = agreement(ours.vectors(Path(temporary)), peer.vectors(Path(temporary)))
    rates: dict[str, float] = {}
    for name, made in times.items():
        wall = statistics.median(run.wall_s for run in made)
        cpu = statistics.median(run.cpu_s for run in made)
        rates[name] = count / wall
        rest = (count - 1) / max(wall - starts[name], 1e-9)
        print(
            f"  {name:<12} {rates[name]:7.2f} images/s; start {starts[name]:.1f} s, without it "
            f"{rest:.2f} images/s; {cpu / count * 1000:.0f} ms of computing a photo"
        )
    print(f"  rows: {count} vectors in each database, of the same pictures in {same:.1%}")
    us, them = rates.values()
    print(f"  ratio {us / them:.2f}{_verdict(us / them, BARS.get(megapixels), count)}")


def _verdict(ratio: float, bar: float | None, count: int) -> str:
    if bar is None:
        return ""
    if count < ENOUGH_PHOTOS:
        return f"; bar >= {bar}: not judged by fewer than {ENOUGH_PHOTOS} photos"
    return f"; bar >= {bar}: {'met' if ratio >= bar else 'MISSED'}"


class Ours:
    """``clipsearch index``, with the compiled runtime made."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache / "runtime"
        self.weights = cache / "large"
        if not self.weights.is_dir():
            random_large(cache)
        self._address = f"local-dir:{self.weights}"
        if not compile_encoder(self._address, settings=resolve({"cache_dir": self._cache})):
            sys.exit("the compiled runtime could not be made")

    def index(self, photos: Path, temporary: Path) -> Run:
        library = temporary / "bench.clipsearch"
        shutil.rmtree(library, ignore_errors=True)
        command = [sys.executable, "-m", "clipsearch", "index", str(photos)]
        command += ["--library", str(library), "--model", self._address]
        return timed(command, photos, {"CLIPSEARCH_CACHE_DIR": str(self._cache)})

    def vectors(self, temporary: Path) -> tuple[list[str], Matrix]:
        """File names and unit rows, in the order of the names."""
        with Library.open(temporary / "bench.clipsearch") as library:
            space = library.active_space()
            if space is None:
                return [], np.empty((0, 512), np.float32)
            ids, rows = library.vectors(space.id)
            paths = library.paths([int(item) for item in ids])
        return _sorted([paths[int(item)][0].name for item in ids], rows)


class Peer:
    """``rclip``, in a virtual environment of its own, with the same weights."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._environment = cache / f"rclip-{VERSION}"
        self._data = cache / "rclip-data"

    @property
    def _python(self) -> Path:
        return self._environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def prepare(self, weights: Path) -> None:
        """Installs it and exports the weights to where it looks for them, each once."""
        if not self._is_installed():
            print(f"installing rclip {VERSION} into {self._environment}", flush=True)
            made = [sys.executable, "-m", "venv", "--clear", str(self._environment)]
            subprocess.run(made, check=True)
            install = [str(self._python), "-m", "pip", "install", "--quiet", f"rclip=={VERSION}"]
            subprocess.run(install, check=True)
            if not self._is_installed():
                sys.exit(f"rclip {VERSION} could not be installed")
        if not (self._data / MODEL_FOLDER / "visual.onnx").exists():
            self._export(weights)

    def _is_installed(self) -> bool:
        asked = [str(self._python), "-P", "-m", "rclip", "--version"]  # -P: not this very file
        try:
            told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return False
        return told.split() == ["rclip", VERSION]

    def _export(self, weights: Path) -> None:
        print("exporting the weights as ONNX", flush=True)
        packages = self._cache / "exporter"
        if not packages.is_dir():
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*install, "--target", str(packages), *EXPORTER], check=True)
        command = [sys.executable, "-W", "ignore", __file__, "--export"]
        command += [str(weights), str(packages)]
        with tempfile.TemporaryDirectory(dir=self._cache) as temporary:
            made = Path(temporary) / "rclip-data"
            subprocess.run([*command, str(made)], check=True)
            shutil.rmtree(self._data, ignore_errors=True)
            made.replace(self._data)

    def index(self, photos: Path, temporary: Path) -> Run:
        data = temporary / "rclip-data"
        if not data.exists():
            data.mkdir()
            for name in (MODEL_FOLDER, "tokenizer"):
                (data / name).symlink_to(self._data / name, target_is_directory=True)
        for file in data.glob("db.sqlite3*"):
            file.unlink()
        query = f"./{min(photos.iterdir()).name}"
        command = [str(self._python), "-P", "-m", "rclip", "--filepath-only", "--top", "1", query]
        return timed(command, photos, {"RCLIP_DATADIR": str(data), "HF_HUB_OFFLINE": "1"})

    def vectors(self, temporary: Path) -> tuple[list[str], Matrix]:
        """File names and unit rows, in the order of the names."""
        database = sqlite3.connect(temporary / "rclip-data" / "db.sqlite3")
        try:
            rows = database.execute(
                "SELECT filepath, vector FROM images WHERE deleted IS NULL"
            ).fetchall()
        finally:
            database.close()
        vectors = [np.frombuffer(row[1], np.float32) for row in rows]
        names = [Path(row[0]).name for row in rows]
        return _sorted(names, np.stack(vectors) if vectors else np.empty((0, 512), np.float32))


def _sorted(names: list[str], rows: Matrix) -> tuple[list[str], Matrix]:
    order = sorted(range(len(names)), key=names.__getitem__)
    return [names[at] for at in order], rows[order]


def timed(command: list[str], folder: Path, environment: dict[str, str]) -> Run:
    """Runs a program in a folder to its end; exits when it fails."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OMP_", "CLIPSEARCH_", "RCLIP_"))
    }
    if command[0] != sys.executable:
        inherited.pop("PYTHONPATH", None)
    before = os.times()
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=_ONE_PROGRAM_S,
        check=False,
    )
    wall = time.perf_counter() - started
    after = os.times()
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ... failed:\n{done.stderr[-2000:]}")
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return Run(wall, cpu)


def agreement(ours: tuple[list[str], Matrix], theirs: tuple[list[str], Matrix]) -> float:
    """Of how many photos the nearest of rclip's vectors to ours is that of the same photo.

    Both sets are centred: random weights give all pictures nearly the same vector.
    """
    if ours[0] != theirs[0]:
        return 0.0
    one, other = (rows - rows.mean(axis=0) for rows in (ours[1], theirs[1]))
    other = other / np.linalg.norm(other, axis=1, keepdims=True)
    return float(np.mean((one @ other.T).argmax(axis=1) == np.arange(len(one))))


def gathered(cache: Path, megapixels: float, count: int) -> Path:
    """A folder of so many photos of that size, made once."""
    photos = cache / f"photos-{megapixels:g}-{count}"
    if photos.is_dir():
        return photos
    print(f"making {count} photos of {megapixels:g} megapixels", flush=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        made = Path(temporary) / "photos"
        made.mkdir()
        if megapixels == 0.25:
            make_photos(made, count)
            shutil.rmtree(made / "originals")
        else:
            make_large_photos(made, count, megapixels)
        made.replace(photos)
    return photos


def make_large_photos(folder: Path, count: int, megapixels: float) -> None:
    """Writes JPEGs of 4 to 3, cut from the sample photos, enlarged and as noisy as a camera's."""
    small = folder.parent / "small"
    small.mkdir()
    make_photos(small, count)
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (round(height * 4 / 3), height)
    with ProcessPoolExecutor(available_cores()) as pool:
        jobs = [
            pool.submit(_enlarge, small / f"{number:05}.jpg", folder / f"{number:05}.jpg", size)
            for number in range(count)
        ]
        for job in jobs:
            job.result()


def _enlarge(source: Path, destination: Path, size: tuple[int, int]) -> None:
    with Image.open(source) as small:
        width, height = small.size
        box = (0, 0, width, height * 3 // 4)
        pixels = np.asarray(small.crop(box).resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    chance = np.random.default_rng(random.Random(source.name).getrandbits(32))
    noise = chance.integers(-NOISE_LEVELS, NOISE_LEVELS + 1, (*pixels.shape[:2], 1), dtype=np.int16)
    noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(destination, "JPEG", quality=LARGE_QUALITY)


def export(weights: Path, packages: Path, destination: Path) -> None:
    """Writes what rclip downloads: two ONNX files and the words of the tokenizer."""
    sys.path.append(str(packages))  # last: what we have installed ourselves comes first
    import open_clip
    import torch

    from clipsearch.encoders.openclip import load_openclip

    torch.backends.mha.set_fastpath_enabled(False)
    model = load_openclip(f"local-dir:{weights}").model.float().eval()

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
            return found

    towers = {
        "visual": (model.visual, torch.zeros(1, 3, 256, 256)),
        "textual": (Words(), torch.zeros(1, 77, dtype=torch.long)),
    }
    (destination / MODEL_FOLDER).mkdir(parents=True)
    for name, (tower, example) in towers.items():
        torch.onnx.export(
            tower,
            (example,),
            str(destination / MODEL_FOLDER / f"{name}.onnx"),
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            opset_version=18,
            dynamo=False,
        )
    words = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    (destination / "tokenizer").mkdir()
    shutil.copy(words, destination / "tokenizer")


def _load() -> str:
    """What else the machine does: figures of a busy one are none."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--export":
        export(*map(Path, sys.argv[2:]))
    else:
        main()
