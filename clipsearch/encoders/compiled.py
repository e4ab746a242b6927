"""The compiled CPU runtime: models made ready on disk, loaded and run without importing torch.

A cache entry is a folder named by the space: image.xml/.bin for OpenVINO, text.safetensors for
``text_tower`` (text.xml/.bin where that cannot compute it), and a manifest with the checksums of
all. It is made by ``openclip_export`` and remade when anything differs. Words import no OpenVINO.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipsearch.config import Settings
from clipsearch.encoders import text_tower
from clipsearch.encoders.checking import checked_pixels, checked_texts
from clipsearch.encoders.tokenizer import BytePairTokenizer
from clipsearch.encoders.unread import unread_words
from clipsearch.errors import DeviceError, ModelError
from clipsearch.vectors import EmbeddingSpace, Matrix, Pixels, unit_rows

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.encoders.preprocessing import Preprocessing

MANIFEST = "manifest.json"
TOWERS = ("image", "text")
RUNTIME = "openvino"
# 2: the last layer of a ViT computes its class token alone. 3: words in numpy, up to their end.
_FORMAT = 3
_SUB_BATCH = 8  # pictures in one request; several requests run side by side
_CHUNK_BYTES = 1 << 20
_LEAST_COSINE = 0.99  # of a picture's vector in bfloat16 to that in float32


@dataclass(frozen=True)
class Manifest:
    """What a cache entry says of itself."""

    space: EmbeddingSpace
    address: str
    preprocess_cfg: dict[str, Any]
    context_length: int
    clean: str
    files: dict[str, str]  # name -> checksum
    openvino: str  # the version that made it
    format: int = _FORMAT

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of an entry that this version can use, else None."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        record["space"] = EmbeddingSpace(**record["space"])
        manifest = Manifest(**record)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if manifest.format != _FORMAT or manifest.openvino != openvino_version():
        return None
    return manifest if manifest.space.id == folder.name else None


@cache
def openvino_version() -> str:
    """The installed version, without the tenth of a second that importing it takes."""
    return version("openvino")


def find_entry(settings: Settings, space: EmbeddingSpace) -> Path | None:
    """The sound cache entry of a space, or None."""
    folder = settings.compiled_dir / space.id
    manifest = read_manifest(folder)
    if manifest is None or manifest.space != space:
        return None
    return folder if all((folder / name).is_file() for name in manifest.files) else None


def find_address(settings: Settings, address: str) -> EmbeddingSpace | None:
    """The space that an entry made from this address has, if there is exactly one."""
    folder = settings.compiled_dir
    if not folder.is_dir():
        return None
    manifests = (read_manifest(entry) for entry in folder.iterdir())
    spaces = [found.space for found in manifests if found and found.address == address]
    return spaces[0] if len(spaces) == 1 else None


def is_sound(folder: Path, tower: str, manifest: Manifest) -> bool:
    """True if a tower's files are byte for byte as they were made."""
    made = {name: value for name, value in manifest.files.items() if Path(name).stem == tower}
    try:
        return bool(made) and all(
            file_checksum(folder / name) == value for name, value in made.items()
        )
    except OSError:
        return False


def file_checksum(path: Path) -> str:
    state = xxhash.xxh3_128()
    chunk = memoryview(bytearray(_CHUNK_BYTES))  # one, because fresh memory is slower than the disk
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(chunk):
            state.update(chunk[:count])
    return str(state.hexdigest())


class DamagedEntryError(Exception):
    """A cache entry whose bytes are not as written; the loader makes it anew."""


class CompiledEncoder:
    """An Encoder that needs no torch. Each tower is loaded when it is first needed.

    Pictures are computed by OpenVINO in ``precision``, words by numpy in float32.
    """

    runtime = RUNTIME

    def __init__(self, folder: Path, settings: Settings) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise DamagedEntryError(folder)
        self.space = manifest.space
        self.address = manifest.address
        self._folder = folder
        self._manifest = manifest
        self._settings = settings
        self.precision = self._precision(settings.precision)
        self._pictures: Any = None
        self._words: Callable[[NDArray[np.int64]], NDArray[np.float32]] | None = None
        self._requests: Any = None
        self._loading = threading.Lock()
        self._running = {tower: threading.Lock() for tower in TOWERS}
        if not all(is_sound(folder, tower, manifest) for tower in TOWERS):
            raise DamagedEntryError(folder)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        from clipsearch.encoders.preprocessing import Preprocessing  # words need no Pillow

        return Preprocessing.from_config(self._manifest.preprocess_cfg)

    @cached_property
    def _tokenizer(self) -> BytePairTokenizer:
        return BytePairTokenizer(self._manifest.context_length, self._manifest.clean)

    def preprocess(self, image: Image.Image) -> Pixels:
        return self.preprocessing.apply(image)

    @cached_property
    def _core(self) -> Any:
        from clipsearch.encoders.openvino_runtime import ov

        return ov.Core()

    def encode_images(self, batch: Pixels) -> Matrix:
        from clipsearch.encoders.openvino_runtime import ov

        pixels = checked_pixels(batch, self.preprocessing.height, self.preprocessing.width)
        vectors = np.empty((len(pixels), self.space.dim), np.float32)
        tower = self._image_tower()
        with self._running["image"]:
            if self._requests is None:
                streams = tower.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
                self._requests = ov.AsyncInferQueue(tower, streams)
                self._requests.set_callback(_keep)
            try:
                for start in range(0, len(pixels), _SUB_BATCH):
                    part = pixels[start : start + _SUB_BATCH]
                    self._requests.start_async([part], (vectors, start))
                self._requests.wait_all()
            except BaseException as error:
                self._requests = None  # one that failed keeps what it failed on
                if isinstance(error, RuntimeError):
                    reason = f"{self.address} could not encode these pictures: {error}"
                    raise ModelError(reason=reason) from error
                raise
        return unit_rows(vectors) if len(vectors) else vectors

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        checked = checked_texts(texts)
        if not checked:
            return np.empty((0, self.space.dim), np.float32)
        tokens = self._tokenizer(checked)
        tower = self._text_tower()
        with self._running["text"]:
            return unit_rows(tower(tokens))

    @property
    def context_length(self) -> int:
        return self._manifest.context_length

    def unread(self, texts: Sequence[str]) -> list[str]:
        return [unread_words(text, self._tokenizer.is_cut) for text in checked_texts(texts)]

    def _image_tower(self) -> Any:
        with self._loading:
            if self._pictures is None:
                made = self._compile("image", "THROUGHPUT", self.precision)
                if self.precision == "bf16":
                    exact = self._compile("image", "THROUGHPUT", "f32")
                    pictures = plain_pictures(self.preprocessing.height, self.preprocessing.width)
                    require_close(self.address, exact([pictures])[0], made([pictures])[0])
                self._pictures = made
            return self._pictures

    def _text_tower(self) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
        with self._loading:
            if self._words is None:
                if text_tower.FILE in self._manifest.files:
                    self._words = text_tower.TextTower(self._folder / text_tower.FILE)
                else:
                    made = self._compile("text", "LATENCY", self.precision)
                    self._words = lambda tokens: made([tokens])[0]
            return self._words

    def _compile(self, tower: str, hint: str, precision: str) -> Any:
        options = {
            "PERFORMANCE_HINT": hint,
            # Left to itself OpenVINO computes in bfloat16 wherever the CPU can.
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self._settings.thread_count,
        }
        return self._core.compile_model(self._folder / f"{tower}.xml", "CPU", options)

    def _precision(self, wanted: str) -> str:
        if wanted != "bf16":
            return "f32"
        if "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError(
                reason="--precision bf16: this CPU has no bfloat16 arithmetic. Use --precision f32"
            )
        return "bf16"


def plain_pictures(height: int, width: int) -> Pixels:
    """Pictures of little contrast, dark to pale: what bfloat16, of 8 binary digits, loses first.

    (n, 3, height, width) uint8, the same each time.
    """
    chance = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / max(height, width)
    pictures = []
    for brightness in (8, 24, 60, 128, 200, 230, 245):
        for contrast in (2, 6):
            waves = np.zeros_like(x)
            for across, down in chance.uniform(1, 8, (4, 2)):
                waves += np.sin(2 * np.pi * (across * x + down * y) + chance.uniform(0, 6))
            grain = chance.normal(0, 2, (3, *x.shape))
            pictures.append(brightness + contrast * waves + grain)
    levels: Pixels = np.clip(np.rint(np.stack(pictures)), 0, 255).astype(np.uint8)
    return levels


def require_close(address: str, exact: Matrix, reduced: Matrix) -> None:
    """DeviceError where (n, dim) vectors in bfloat16 are too far from those in float32."""
    least = float((unit_rows(exact) * unit_rows(reduced)).sum(axis=1).min())
    if least < _LEAST_COSINE:
        raise DeviceError(
            reason=f"--precision bf16: {address} loses too much in bfloat16, the cosine to float32 "
            f"falls to {least:.3f} in pictures of little contrast, and {_LEAST_COSINE} is the "
            "least. Use --precision f32"
        )


def _keep(request: Any, place: tuple[Matrix, int]) -> None:
    """Copies the finished vectors of one request to where they belong."""
    vectors, start = place
    found = request.get_output_tensor(0).data
    vectors[start : start + len(found)] = found
