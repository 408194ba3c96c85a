"""Where compiled kernels are kept: in the user's cache, under a name that changes with any source they are made from.

numba by itself looks only at the file that a function stands in: a kernel would go on with the old code of one that it
calls in another file, and with old constants. And it keeps kernels beside the sources, where a read-only installation
has no room.
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
    """Over all files that kernels, or constants that become part of them, stand in."""
    package = Path(__file__).parents[1]
    paths = [*package.glob("model/*.py"), *package.glob("pipeline/*.py"), package / "events.py", package / "profile.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


numba.config.CACHE_DIR = str(directory())  # type: ignore[attr-defined]


def leaf(function: Callable[..., Any]) -> Any:
    """Compile a kernel that makes no array: so it counts no references, which costs ten times more than a digit does.

    Otherwise every call of a helper raises and lowers the counts of its arrays, atomically. The option is numba's own.
    And it becomes part of the kernels that call it: a call hands every array on as seven numbers (scanning JSON, which
    is small helpers throughout, takes 140 ns an event for 330; learning a tenth less).
    """
    options = {"cache": True, "error_model": "numpy", "_nrt": False, "forceinline": True}
    return numba.njit(**options)(function)  # type: ignore[call-overload]
