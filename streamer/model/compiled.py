"""Where compiled kernels are kept: in the user's cache, under a name that changes with the source of any kernel.

numba by itself looks only at the file that a function stands in: a kernel would go on with the old code of one that it
calls in another file. And it keeps kernels beside the sources, where a read-only installation has no room.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    rooms = ("model", "pipeline")
    sources = (path.read_bytes() for path in sorted(package.glob("*/*.py")) if path.parent.name in rooms)
    kernels = (source for source in sources if b"@njit" in source or b"@leaf" in source)
    return hashlib.sha256(b"".join(kernels)).hexdigest()[:16]


numba.config.CACHE_DIR = str(directory())  # type: ignore[attr-defined]


def leaf(function: Callable[..., Any]) -> Any:
    """Compile a kernel that makes no array: so it counts no references, which costs ten times more than a digit does.

    Otherwise every call of a helper raises and lowers the counts of its arrays, atomically. The option is numba's own.
    And it becomes part of the kernels that call it: a call hands every array on as seven numbers (scanning JSON, which
    is small helpers throughout, takes 140 ns an event for 330; learning a tenth less).
    """
    options = {"cache": True, "error_model": "numpy", "_nrt": False, "forceinline": True}
    return numba.njit(**options)(function)  # type: ignore[call-overload]
