"""Backups: for each partition a RocksDB checkpoint, which is a prefix of its changelog, and a manifest beside them.

    DIR/manifest.json    whose state it is, of which changelog, and up to which of its offsets each partition reaches
    DIR/<partition>/     the files of the database; tables are hard links where the file system is the same

It is written as `DIR.partial` and renamed at the end: a directory with a manifest is whole. Put back into the data
directory of a stopped worker, it is what that worker would have had then: it catches up from the changelog.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from streamer.engine.position import LAYOUT
from streamer.engine.store import DataDir, Store, set_aside, shared_cache
from streamer.engine.topic_ids import Origin
from streamer.errors import DataDirError, SettingsError, StateError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
TABLES: Final = ".sst"  # never changed once written: a link is as good as a copy
OWNER_ONLY: Final = 0o700  # profiles are personal data


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds. `offsets`: by partition, the changelog offset that it reaches to. `taken_at`: Unix ms."""

    format: int
    app: str
    origin: Origin
    partitions: int
    layout: int
    version: str
    taken_at: int
    offsets: dict[int, int]


class Restored(msgspec.Struct, frozen=True):
    """Partitions that were put back, and those that were left alone because they reach at least as far."""

    restored: tuple[int, ...]
    kept: tuple[int, ...]
    offsets: dict[int, int]


def begin(to: Path) -> Path:
    """An empty directory to write a backup for `to` into. Raises DataDirError where there is something already."""
    try:
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise DataDirError(f"{to} is not empty: name a directory that is not there yet")
        partial = to.with_name(f"{to.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # of an attempt that was cut short
        partial.mkdir(OWNER_ONLY)
    except OSError as exc:
        raise DataDirError(f"no backup can be written to {to} ({exc.strerror})") from None
    return partial


def copy(source: Path, to: Path) -> None:
    """A copy of a directory without directories in it; its tables are links where that can be.

    Raises DataDirError where it cannot be written.
    """
    try:
        to.mkdir(parents=True)
        for file in source.iterdir():
            _link_or_copy(file, to / file.name)
        _sync(to)
    except OSError as exc:
        raise DataDirError(f"{source} cannot be copied to {to} ({exc.strerror})") from None


def finish(partial: Path, to: Path, manifest: Manifest) -> None:
    """All is written: from here on it is a backup."""
    with (partial / MANIFEST).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)))
        file.flush()
        os.fsync(file.fileno())
    for directory in (*(path for path in partial.iterdir() if path.is_dir()), partial):
        _sync(directory)
    partial.rename(to)
    _sync(to.parent)


def read_manifest(backup: Path) -> Manifest:
    """What a backup says of itself. Raises StateError for one that is not whole, or of a newer version."""
    try:
        raw: dict[str, Any] = msgspec.json.decode((backup / MANIFEST).read_bytes())
    except (OSError, msgspec.DecodeError):
        raise StateError(f"{backup} is no backup, or not a whole one: it has no readable {MANIFEST}") from None
    if raw["format"] > FORMAT or raw["layout"] > LAYOUT:
        raise StateError(f"{backup} was made by streamer {raw['version']}: use that version, or a newer one")
    return msgspec.convert(raw, Manifest, strict=False)


def put_back(settings: Settings, backup: Path) -> Restored:
    """Put a backup into the data directory of a stopped worker.

    A partition that is there and reaches at least as far is left alone, one that does not is moved aside.

    Raises StateError for what is no whole backup, SettingsError for one of another app, DataDirError while a worker has
    the data directory or where it cannot be written.
    """
    manifest = read_manifest(backup)
    _require_own(settings, manifest)
    data_dir = DataDir(settings.data_dir)
    try:
        place = settings.data_dir / settings.group_id
        offsets = manifest.offsets
        kept = {n for n, offset in offsets.items() if (place / str(n)).exists() and _reach(place / str(n)) >= offset}
        for n in offsets.keys() - kept:
            _put_back(backup / str(n), place / str(n))
    except OSError as exc:
        raise DataDirError(f"{backup} cannot be put back into {settings.data_dir} ({exc.strerror})") from None
    finally:
        data_dir.close()
    return Restored(tuple(sorted(offsets.keys() - kept)), tuple(sorted(kept)), offsets)


def _require_own(settings: Settings, manifest: Manifest) -> None:
    if manifest.app != settings.group_id:
        raise SettingsError(
            f"the backup is of {manifest.app!r}, these settings are of {settings.group_id!r}:"
            " see STREAMER_APP_ID and STREAMER_TOPIC_PREFIX"
        )
    if manifest.partitions != settings.partitions:
        raise SettingsError(
            f"the backup was made with STREAMER_PARTITIONS={manifest.partitions}, it is {settings.partitions} now"
        )


def _reach(path: Path) -> int:
    """How far a partition's database reaches in the changelog."""
    store = Store(path, shared_cache(8))
    try:
        return store.next_offset
    finally:
        store.close()


def _put_back(source: Path, target: Path) -> None:
    draft = target.with_name(f"{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    copy(source, draft)
    if target.exists():
        log.warning("the state that was there is moved aside", moved_to=str(set_aside(target)))
    draft.rename(target)
    _sync(target.parent)


def _link_or_copy(source: Path, target: Path) -> None:
    if source.suffix == TABLES:
        try:
            target.hardlink_to(source)
        except OSError:
            pass  # another file system, or one without hard links
        else:
            return
    shutil.copyfile(source, target)
    _sync(target)


def _sync(path: Path) -> None:
    """What is in a file, or the names in a directory, survive a power cut from here on."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
