"""How a running worker is asked for a backup: two files in its data directory, which only its own user can write.

    backup.request    what is wanted, put there by `streamer backup`
    backup.answer     how far it is, put there by the worker after each step

Databases can be opened by one process only, so the worker does it. It writes on meanwhile: a partition's checkpoints
wait for the links to its files that a copy is made from, some milliseconds, and not for the copy.
"""

import asyncio
import logging
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec
import structlog
from mode import Service

from streamer import __version__
from streamer.engine.backup import FORMAT, Manifest, begin, copy, finish
from streamer.engine.engine import Engine
from streamer.engine.partition import Partition
from streamer.engine.position import LAYOUT
from streamer.engine.topic_ids import changelog_origin
from streamer.errors import DataDirError, StreamerError
from streamer.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

LOOK_S: Final = 0.5  # the worker's eye on the request: a stat call, nothing
ANSWER_S: Final = 10.0  # a worker that is busy begins within this
STEP_S: Final = 300.0  # the copy of one partition to another file system: 30 GB at 100 MB/s


class Request(msgspec.Struct, frozen=True):
    """Please back up into `to`."""

    id: str
    to: str


class Answer(msgspec.Struct, frozen=True):
    """How far request `id` is: `steps` grows, `error` says why it `failed`."""

    id: str
    state: Literal["begun", "done", "failed"]
    steps: int = 0
    error: str = ""
    manifest: Manifest | None = None


def ask(settings: Settings, to: Path) -> Manifest:
    """Have the worker that runs on the data directory back up into `to`; returns what the backup holds.

    Raises DataDirError when no worker answers, StreamerError with the worker's own reason.
    """
    request = Request(str(uuid.uuid4()), str(to.absolute()))
    _put(_request_file(settings), request)
    steps, deadline = -1, time.monotonic() + ANSWER_S
    try:
        while time.monotonic() < deadline:
            answer = _get(_answer_file(settings), Answer)
            if answer is not None and answer.id == request.id:
                if answer.manifest is not None:
                    return answer.manifest
                if answer.state == "failed":
                    raise StreamerError(answer.error)
                if answer.steps > steps:
                    steps, deadline = answer.steps, time.monotonic() + STEP_S
            time.sleep(LOOK_S / 5)
    finally:
        _request_file(settings).unlink(missing_ok=True)
    raise DataDirError(
        f"no worker answers on {settings.data_dir}: is one running there, as this user? While none is, the directory"
        " itself can be copied"
    )


class Backups(Service):
    """The worker's side."""

    logger = logging.getLogger("mode")  # a service's comings and goings: filtered with the library's own

    def __init__(self, settings: Settings, engine: Engine, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings, self._engine = settings, engine
        self._seen = ""

    @Service.task
    async def _watch(self) -> None:
        while not self.should_stop:
            await self.sleep(LOOK_S)
            request = _get(_request_file(self._settings), Request)
            if request is not None and request.id != self._seen:
                self._seen = request.id
                await self._answer(request)

    async def _answer(self, request: Request) -> None:
        """A backup that fails leaves the worker as it was."""
        try:
            manifest = await self._back_up(request)
            log.info("backed up", to=request.to, partitions=sorted(manifest.offsets))
            _put(_answer_file(self._settings), Answer(request.id, "done", manifest=manifest))
        except Exception as exc:
            log.warning("a backup failed", to=request.to, reason=str(exc))
            with suppress(DataDirError):
                _put(_answer_file(self._settings), Answer(request.id, "failed", error=str(exc)))

    async def _back_up(self, request: Request) -> Manifest:
        settings, engine, to = self._settings, self._engine, Path(request.to)
        if not engine.ready:
            raise StreamerError(f"the worker is not ready ({engine.reason}): try again when it is")
        partitions = dict(engine.partitions)
        partial = begin(to)
        _put(_answer_file(settings), Answer(request.id, "begun"))
        origin = await asyncio.to_thread(changelog_origin, settings)
        now_ms = engine.shared.now_ms()
        offsets = {}
        for n, partition in partitions.items():
            offsets[n] = await _copy(partition, partial / str(n))
            _put(_answer_file(settings), Answer(request.id, "begun", steps=len(offsets)))
        manifest = Manifest(
            FORMAT, settings.group_id, origin, settings.partitions, LAYOUT, __version__, now_ms, offsets
        )
        finish(partial, to, manifest)
        return manifest


async def _copy(partition: Partition, to: Path) -> int:
    """A copy of a partition's database; returns the changelog offset that it reaches to."""
    async with partition.txn_lock:
        store = partition.store
        if store is None:
            raise StreamerError(f"partition {partition.number} went to another worker meanwhile: try again")
        beside = store.path.with_name(f"{store.path.name}.backup")
        shutil.rmtree(beside, ignore_errors=True)  # of an attempt that was cut short
        await asyncio.to_thread(store.copy_to, beside)
        reaches_to = store.next_offset
    try:
        await asyncio.to_thread(copy, beside, to)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return reaches_to


def _request_file(settings: Settings) -> Path:
    return settings.data_dir / "backup.request"


def _answer_file(settings: Settings) -> Path:
    return settings.data_dir / "backup.answer"


def _put(path: Path, value: msgspec.Struct) -> None:
    """Whoever reads it finds all of it. Raises DataDirError."""
    draft = path.with_name(f"{path.name}.new")
    try:
        draft.write_bytes(msgspec.json.encode(value))
        draft.rename(path)
    except OSError as exc:
        raise DataDirError(f"{path} cannot be written ({exc.strerror})") from None


def _get(path: Path, kind: type[T]) -> T | None:
    """What is there; None for nothing, and for what is not ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
