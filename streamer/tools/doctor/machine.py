"""Checks of the machine that the worker runs on: disk, lock, descriptors, memory, kernels. They ask no broker."""

import fcntl
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from streamer.engine.descriptors import needed as needed_descriptors
from streamer.engine.store import WRITE_BUFFER_BYTES
from streamer.settings import Settings
from streamer.tools.doctor.finding import Finding, error, note, ok, size, warning

MIB: Final = 1 << 20
GIB: Final = 1 << 30
FULL_BYTES: Final = 256 * MIB  # less is gone with the next flush of all write buffers (2 x 16 MiB a partition)
SCARCE_BYTES: Final = GIB
USER_BYTES: Final = 1140  # of a cached user, all included: deploy/BENCHMARKS.md
ITEM_BYTES: Final = 1024  # of an item in the catalogue: settings.catalogue_items
PROCESS_BYTES: Final = 350 * MIB  # Python, numba, Kafka clients and their buffers, without what is counted below
NEARLY: Final = 0.8  # of the limit: what the allocator and the page cache want beside
NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "lustre", "afs"})
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def data_directory(settings: Settings) -> Iterator[Finding]:
    """Whether state can be written, where to, and for how long there is room."""
    place = _existing(settings.data_dir)
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as exc:
        yield error(
            f"{settings.data_dir} cannot be written ({exc.strerror})",
            "a worker does not start without a place for its state (exit code 5)",
            "mount it read-write, give it to the worker's user (10001 in our image), or set another STREAMER_DATA_DIR",
        )
        return
    yield from _room(settings, place)
    yield from _kind(settings, place)


def _existing(path: Path) -> Path:
    """The directory itself, or the nearest one above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _room(settings: Settings, place: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(place).free
    state = sum(file.stat().st_size for file in (settings.data_dir / settings.group_id).rglob("*") if file.is_file())
    seen = f"{size(free)} free for {settings.data_dir}, whose state takes {size(state)}"
    if free < FULL_BYTES:
        yield error(
            seen,
            "RocksDB fails at its next flush, and the worker leaves with exit code 5; nothing is lost",
            "free space or enlarge the volume; `*.unused-*` in the data directory is safe to delete",
        )
    elif free < max(SCARCE_BYTES, state):
        yield warning(
            seen,
            "RocksDB keeps old tables until their compaction is done: the state may take twice its size for a while",
            "enlarge the volume, or spread the partitions over more workers",
        )
    else:
        yield ok(seen)


def _kind(settings: Settings, place: Path) -> Iterator[Finding]:
    kind = filesystem(place.resolve(), _mounts())
    if kind in IN_MEMORY:
        yield warning(
            f"{settings.data_dir} is in memory ({kind})",
            "the state goes with the machine or container, and each start restores all of it from the changelog",
            "put it on a disk that survives a restart",
        )
    elif kind in NETWORK or kind.startswith("fuse."):
        yield warning(
            f"{settings.data_dir} is on a network file system ({kind})",
            "each checkpoint waits for the network, and locks may not hold across machines",
            "use a local disk or a block volume: the changelog restores it where it is lost",
        )
    elif kind == "overlay":
        yield note(
            f"{settings.data_dir} is in the container's own layer",
            "the state goes with the container, and the next one restores all of it from the changelog",
            "mount a volume there",
        )


def filesystem(path: Path, mounts: str) -> str:
    """The type of the file system that holds `path` (resolved), of a table as in /proc/mounts; empty when unknown.

    >>> filesystem(Path("/data/state"), "/dev/a / ext4 rw 0 0\\nserver:/x /data nfs4 rw 0 0")
    'nfs4'
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, mount, its_kind, *_ = line.split(" ")
        point = Path(mount.replace("\\040", " "))  # the table writes spaces so
        if path.is_relative_to(point) and len(point.parts) >= best:  # a later mount on the same place hides the other
            best, kind = len(point.parts), its_kind
    return kind


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text("utf-8")
    except OSError:
        return ""  # not Linux


def holder(data_dir: Path) -> str | None:
    """The process id of the worker that holds the directory, as it noted it; None when nobody does.

    The lock is asked for, shared and for an instant: a note alone survives the worker that wrote it.
    """
    try:
        with (data_dir / "LOCK").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return lock.read().strip() or "unknown"
    except OSError:
        pass
    return None


def lock(settings: Settings) -> Iterator[Finding]:
    """Who has the data directory."""
    pid = holder(settings.data_dir)
    if pid is None:
        yield ok(f"no worker holds {settings.data_dir}: one can start")
        return
    yield ok(f"a worker runs on {settings.data_dir}: process {pid}{_command(pid)}; a second one would be refused")


def _command(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""  # of another container, or not on Linux
    return f" ({' '.join(words).strip()[:120]})"


def descriptors(settings: Settings) -> Iterator[Finding]:
    """Open files: RocksDB keeps one for each table. The worker takes all that the hard limit gives it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = needed_descriptors(settings.partitions)
    if hard == resource.RLIM_INFINITY or hard >= need:
        yield ok(f"{'any number of' if hard == resource.RLIM_INFINITY else format(hard, ',')} open files allowed")
        return
    yield warning(
        f"{hard:,} open files allowed, a worker with all {settings.partitions} partitions may want {need:,}",
        "once the state is large, RocksDB cannot open its tables, and the worker leaves with exit code 5",
        "raise the hard limit: `ulimits: nofile` in Compose, LimitNOFILE= in systemd, `ulimit -Hn` in a shell",
    )


def memory(settings: Settings) -> Iterator[Finding]:
    """What the worker grows to when its caches are full, against what it may have."""
    limit, what = _memory_limit()
    if limit is None:
        yield note("the machine does not say how much memory there is")
        return
    need = memory_bytes(settings)
    seen = (
        f"about {size(need)} with {settings.cache_users:,} users in the cache and all {settings.partitions} partitions,"
        f" of {size(limit)} that {what}"
    )
    if need > limit:
        yield error(
            seen,
            "the worker is killed for it when the cache fills (exit code 137), starts again, and is killed again",
            "lower STREAMER_CACHE_USERS, or give it more memory",
        )
    elif need > NEARLY * limit:
        yield warning(seen, "little is left for peaks and for the disk's cache", "lower STREAMER_CACHE_USERS")
    else:
        yield ok(seen)
    most = need + settings.catalogue_items * ITEM_BYTES
    if need <= limit < most:
        yield note(
            f"with a catalogue of {settings.catalogue_items:,} items it would be {size(most)}",
            "STREAMER_CATALOGUE_ITEMS bounds the memory that items may take, and the bound is above what there is",
            "set it to twice the items that you have",
        )


def memory_bytes(settings: Settings) -> int:
    """Resident memory with full caches and all partitions, without the catalogue."""
    buffers = settings.partitions * 2 * WRITE_BUFFER_BYTES
    caches = (settings.rocksdb_cache_mb + settings.fetch_buffer_mb) * MIB
    return PROCESS_BYTES + buffers + caches + settings.cache_users * USER_BYTES


def _memory_limit() -> tuple[int | None, str]:
    """The lower one of the machine's memory and the limit of our control group, in bytes."""
    total = _number("/proc/meminfo", 1)
    limits = [limit for path in _cgroup_files() if (limit := _number(path, 0)) is not None]
    if limits and (total is None or min(limits) < total * 1024):
        return min(limits), "the container has"
    return (None, "") if total is None else (total * 1024, "the machine has")


def _cgroup_files() -> Iterator[str]:
    """Where limits may stand: version 2 for our group and those above it, then version 1."""
    try:
        groups = Path("/proc/self/cgroup").read_text("utf-8")
    except OSError:
        return
    own = next((line[3:] for line in groups.splitlines() if line.startswith("0::")), "/")
    for group in (Path(own), *Path(own).parents):
        yield f"/sys/fs/cgroup{group}/memory.max"
    yield "/sys/fs/cgroup/memory/memory.limit_in_bytes"


def _number(path: str, word: int) -> int | None:
    """The number that is the given word of the file's first line; None where there is none (`max`)."""
    try:
        first = Path(path).read_text("utf-8").split()[word]
    except (OSError, IndexError):
        return None
    return int(first) if first.isdecimal() else None


def kernels(_settings: Settings) -> Iterator[Finding]:
    """Whether the first batch finds compiled code, and whether the next start does."""
    from streamer.model import compiled  # sets numba up

    place = compiled.directory()
    if place.parent == Path(tempfile.gettempdir()):
        place.rmdir()
        yield warning(
            "compiled kernels cannot be kept: the home directory of this user cannot be written",
            "each start compiles for 20 to 60 s before it joins the group",
            "set HOME to a directory on the worker's volume",
        )
    elif not any(place.rglob("*.nbi")):
        yield note("kernels are not compiled yet", "the first start takes 20 to 60 s more, later ones do not")
    else:
        yield ok("kernels are compiled")
