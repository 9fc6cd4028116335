"""Principal components of embeddings, whitened or not: fitted on training photos, stored beside the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from geoloc.files import DamagedFile, atomic_path, one_line, sha256_bytes
from geoloc.retrieval.settings import PcaSettings
from geoloc.settings import SettingsError

PCA_FILE = "pca.safetensors"
_AT_ONCE = 65_536


@dataclass(frozen=True, eq=False)
class Pca:
    """The map from embeddings of D dimensions to K components: `mean` float32 (D,), `components` float32 (K, D),
    divided by standard deviations if whitened, and `explained` float32 (K,), each component's share of the variance."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    explained: NDArray[np.float32]

    @property
    def dimensions(self) -> int:
        """K."""
        return len(self.components)

    @classmethod
    def fit(cls, vectors: NDArray[Any], settings: PcaSettings, key: str = "embeddings.pca") -> Pca:
        """Fit on N embeddings (N, D), of which at most settings.max_photos are used. Memory beside them: O(D²).

        The sign of a component is such that its largest entry is positive, as in scikit-learn. Raises SettingsError for
        more components than embeddings of N photos and D dimensions have.
        """
        count, size = vectors.shape
        used = min(count, settings.max_photos)
        rows = np.arange(count)
        if used < count:
            rows = np.sort(np.random.default_rng(settings.seed).choice(count, used, replace=False))
        most = min(size, used - 1)
        if settings.dimensions > most:
            raise SettingsError(
                f"{key}.dimensions must be at most {max(most, 0)} for {used} training photos with embeddings of {size} "
                f"dimensions, got {settings.dimensions}"
            )
        blocks = [rows[start : start + _AT_ONCE] for start in range(0, used, _AT_ONCE)]
        mean = sum(vectors[one].astype(np.float64).sum(axis=0) for one in blocks) / used
        spread = np.zeros((size, size))
        for one in blocks:
            part = vectors[one].astype(np.float64) - mean
            spread += part.T @ part
        variances, directions = np.linalg.eigh(spread / (used - 1))
        variances, directions = (
            variances[::-1][: settings.dimensions],
            directions.T[::-1][: settings.dimensions],
        )
        total = float(np.trace(spread)) / (used - 1)
        # Components without variance are noise, which whitening would blow up.
        sound = variances > max(total, np.finfo(np.float64).tiny) * 1e-10
        if not sound.all():
            raise SettingsError(
                f"{key}.dimensions must be at most {int(sound.sum())}, the components in which the training photos' "
                f"embeddings differ; got {settings.dimensions}"
            )
        largest = np.abs(directions).argmax(axis=1)
        directions = directions * np.sign(directions[np.arange(len(directions)), largest])[:, None]
        explained = variances / total
        if settings.whiten:
            directions = directions / np.sqrt(variances)[:, None]
        return cls(mean.astype(np.float32), directions.astype(np.float32), explained.astype(np.float32))

    def transform(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """The components of embeddings (N, D): float32 (N, K), L2-normalised. Raises ValueError for another D."""
        x = np.asarray(vectors, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise ValueError(f"embeddings must have shape (N, {len(self.mean)}), got {x.shape}")
        y = (x - self.mean) @ self.components.T
        norms = np.linalg.norm(y, axis=1, keepdims=True)
        found: NDArray[np.float32] = y / np.maximum(norms, np.finfo(np.float32).tiny)
        return found

    def model_of(self, model: str) -> str:
        """The hash that names embeddings by `model` (a hash, empty if unknown) after this map."""
        return model and sha256_bytes(model.encode() + self._bytes())

    def save(self, path: Path | str) -> None:
        """Write to a safetensors file, atomically; equal maps give equal bytes."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self._bytes())

    def _bytes(self) -> bytes:
        arrays = {"mean": self.mean, "components": self.components, "explained": self.explained}
        # safetensors writes memory as it lies: a transposed array would come back as another.
        data: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        return data

    @classmethod
    def load(cls, path: Path | str) -> Pca:
        """Read such a file. Raises FileNotFoundError, and DamagedFile for another content."""
        data = Path(path).read_bytes()
        try:
            found = load(data)
            pca = cls(found["mean"], found["components"], found["explained"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise DamagedFile(path, f"it holds no principal components: {one_line(error)}") from None
        if pca.components.shape != (len(pca.explained), len(pca.mean)):
            raise DamagedFile(path, f"its shapes {pca.mean.shape} and {pca.components.shape} do not fit")
        return pca
