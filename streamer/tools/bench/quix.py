"""How to run the Quix Streams peer: its packages, as locked, in a directory of their own before ours.

It wants an older pydantic than we have, so the two cannot be installed together. `make lock` makes `quix_streams.lock`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from streamer.tools.bench.kafka_streams import MissingPeerError
from streamer.tools.kafka_jars import default_cache, exclusive

LOCK = Path(__file__).with_name("quix_streams.lock")


def prepare() -> Path:
    """The directory of its packages, filled the first time. Raises MissingPeerError without network."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = default_cache() / f"quix-{python}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    with exclusive(packages.with_name(f"{packages.name}.lock")):
        if not packages.exists():
            _install(packages)
    return packages


def _install(packages: Path) -> None:
    """Installed beside its place, so that the directory is either whole or absent."""
    draft = packages.with_name(f"{packages.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(draft), "--requirement", str(LOCK)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)  # noqa: S603 - our own list
    if done.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        raise MissingPeerError(f"pip cannot install Quix Streams: {done.stderr.strip()}")
    draft.rename(packages)


def variables(packages: Path) -> dict[str, str]:
    """What a process needs in its environment to import them."""
    given = os.environ.get("PYTHONPATH")  # noqa: TID251 - Python's own variable, handed on
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(packages), given]))}
