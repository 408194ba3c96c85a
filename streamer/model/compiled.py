"""Where compiled kernels are kept: in the user's cache, under a name that changes with the source of any kernel.

numba by itself looks only at the file that a function stands in: a kernel would go on with the old code of one that it
calls in another file. And it keeps kernels beside the sources, where a read-only installation has no room.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

import numba


def directory() -> Path:
    """The place for kernels of this very source; one for this process alone where the cache cannot be written."""
    base = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    path = base / "streamer" / "kernels" / _digest()
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="streamer-kernels-"))
    return path


def _digest() -> str:
    """Over all files with kernels, in `model` and in `pipeline`."""
    package = Path(__file__).parents[1]
    sources = (
        path.read_bytes() for path in sorted(package.glob("*/*.py")) if path.parent.name in ("model", "pipeline")
    )
    return hashlib.sha256(b"".join(source for source in sources if b"njit" in source)).hexdigest()[:16]


numba.config.CACHE_DIR = str(directory())  # type: ignore[attr-defined]
