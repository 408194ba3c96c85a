"""The local store: one RocksDB a partition, always equal to a prefix of the partition's changelog. Rows in, rows out.

Keys: `u` + user id, `i` + item id, `d`/`t` + hash (names), and some that no user or item can have: POSITION (where the
partition stands in its sources), MIX and LEARNED (what it learned about experts, and about scales of interests), and
the local ones, which are in no changelog: NEXT (changelog offset after the last row that is in here), ORIGIN (which
changelog that is) and HELD.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
from rocksdict import BlockBasedOptions, Cache, Checkpoint, DBCompressionType, Options, Rdict, WriteBatch

from streamer.engine.descriptors import OPEN_TABLES
from streamer.errors import DataDirError

log = structlog.get_logger(__name__)

NEXT: Final = b"\x00next"
POSITION: Final = b"\x00position"
MIX: Final = b"\x00mix"
LEARNED: Final = b"\x00learned"
ORIGIN: Final = b"\x00origin"  # of which changelog this is a prefix; local only
HELD: Final = b"\x00held"  # + number of a checkpoint: users whose changes were held back in it; local only
USER, ITEM = b"u", b"i"

WRITE_BUFFER_BYTES: Final = 16 << 20  # two a partition: 12 partitions stay under 400 MB
BLOOM_BITS: Final = 10  # 1 % false positives: a new user's look-up seldom touches the disk

Row = tuple[bytes, bytes | None]  # None deletes


class DataDir:
    """A worker's data directory, held by an exclusive lock as long as the process lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "LOCK").open("a+")
        except OSError as exc:
            raise DataDirError(_unusable(path, exc)) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise DataDirError(
                f"{path} is in use by another worker (process {holder}): give each worker its own STREAMER_DATA_DIR"
            ) from None
        self._note_holder()

    def _note_holder(self) -> None:
        try:
            self._lock.truncate(0)
            os.write(self._lock.fileno(), b"%d" % os.getpid())  # past the file's buffer: closing must not fail again
        except OSError as exc:
            self._lock.close()
            raise DataDirError(_unusable(self.path, exc)) from None

    def close(self) -> None:
        """Let another worker have it."""
        self._lock.close()


def _unusable(path: Path, exc: OSError) -> str:
    return f"data directory {path} cannot be written ({exc.strerror}): mend that, or set STREAMER_DATA_DIR elsewhere"


def shared_cache(megabytes: int) -> Any:
    """One block cache for the databases of all partitions."""
    return Cache(megabytes << 20)


def _options(block_cache: Any) -> Any:
    options = Options(raw_mode=True)
    options.create_if_missing(True)  # noqa: FBT003 - RocksDB's own interface, here and below
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(2)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    options.set_max_open_files(OPEN_TABLES)
    options.set_level_compaction_dynamic_level_bytes(True)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(block_cache)
    blocks.set_bloom_filter(BLOOM_BITS, False)  # noqa: FBT003
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options.set_block_based_table_factory(blocks)
    return options


class Store:
    """One partition's rows on disk."""

    def __init__(self, path: Path, block_cache: Any) -> None:
        self.path, self._block_cache = path, block_cache
        self._db = self._open()
        note = self._db.get(NEXT) or b""
        self.next_offset = int.from_bytes(note[:8], "little")
        self.written_at = int.from_bytes(note[8:], "little")  # ms; 0: never

    def _open(self) -> Any:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return Rdict(str(self.path), _options(self._block_cache))
        except Exception as exc:
            raise DataDirError(
                f"the state in {self.path} cannot be opened ({exc}):"
                " if it is damaged, delete it, and the changelog restores it"
            ) from exc

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of many keys in one call; None where there is none."""
        return self._db.get(list(keys)) if keys else []

    def get(self, key: bytes) -> bytes | None:
        """One row."""
        row: bytes | None = self._db.get(key)
        return row

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, in order of key, from `start` on."""
        for key, value in self._db.items(from_key=start or prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def write(self, rows: Iterable[Row], next_offset: int, local: Iterable[Row] = ()) -> None:
        """Put rows, and the changelog offset they reach to, in one atomic write. `local` rows are in no changelog."""
        self.prepare(rows, next_offset, local)()

    def prepare(self, rows: Iterable[Row], next_offset: int, local: Iterable[Row] = ()) -> Callable[[], None]:
        """The same; it is written when the result is called, which may be in another thread."""
        batch = WriteBatch(raw_mode=True)
        for part in (rows, local):
            for key, value in part:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)
        now = time.time_ns() // 1_000_000
        batch.put(NEXT, next_offset.to_bytes(8, "little") + now.to_bytes(8, "little"))

        def write() -> None:
            try:
                self._db.write(batch)
            except Exception as exc:
                where = f"the state in {self.path}"
                raise DataDirError(f"{where} cannot be written ({exc}): see to disk and space") from exc
            self.next_offset, self.written_at = next_offset, now

        return write

    @property
    def origin(self) -> bytes | None:
        """The note of `note_origin`; None where there is none."""
        return self.get(ORIGIN)

    def note_origin(self, origin: bytes) -> None:
        """Note which changelog the rows come from."""
        if self.origin != origin:
            self.write([], self.next_offset, [(ORIGIN, origin)])

    def set_aside(self) -> Path:
        """Start from nothing: what is here does not belong to the changelog. Returns where it is kept."""
        self._db.close()
        aside = set_aside(self.path)
        self._db = self._open()
        self.next_offset = self.written_at = 0
        return aside

    def copy_to(self, path: Path) -> None:
        """A copy as of now, in a directory that is not there yet; links where it is on the same file system."""
        try:
            Checkpoint(self._db).create_checkpoint(str(path))
        except Exception as exc:
            raise DataDirError(f"the state in {self.path} cannot be copied to {path} ({exc})") from exc

    def property(self, name: str) -> int:
        """A RocksDB property that is a number, e.g. `rocksdb.estimate-num-keys`."""
        return int(self._db.property_int_value(name) or 0)

    def text_property(self, name: str) -> str:
        """A RocksDB property that is a text, e.g. `rocksdb.cf-write-stall-stats`."""
        return str(self._db.property_value(name) or "")

    def close(self) -> None:
        """Flush and let go of the directory."""
        self._db.close()


def set_aside(path: Path) -> Path:
    """Move a database that is not open out of the way; returns where it is. Of a partition only the newest is kept."""
    older = list(path.parent.glob(f"{path.name}.unused-*"))
    aside = path.with_name(f"{path.name}.unused-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    try:
        path.rename(aside)
        for each in older:
            shutil.rmtree(each)
    except OSError as exc:
        raise DataDirError(f"the state in {path} cannot be moved to {aside} ({exc.strerror})") from exc
    if older:
        log.info("removed what was moved aside before: only the newest is kept", removed=[str(each) for each in older])
    return aside
