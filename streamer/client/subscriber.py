"""The profile topic as an iterator of updates: every change at least once, no version twice. One thread."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

import structlog

from streamer.client.counters import Counters, registered
from streamer.client.errors import ClosedError
from streamer.client.signals import signals_call
from streamer.client.snapshot import Progress
from streamer.client.source import Source, Start
from streamer.client.updates import Record, Update, Versions, decode_update
from streamer.errors import BrokerError, SettingsError
from streamer.settings import Settings, load

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

log = structlog.get_logger(__name__)


class ProfileSubscriber:
    """Every user's profile as it changes, and erasures, from the profile topic.

    Iterate, and leave with `stop()` from any thread or with a signal:

        from streamer.client import ProfileSubscriber

        with ProfileSubscriber(group="my-service", handle_signals=True) as subscriber:
            for update in subscriber:
                if update.profile is None:
                    print(update.user_id, "was erased", flush=True)
                    continue
                top = [(interest.tag, round(interest.share, 2)) for interest in update.profile.interests[:3]]
                print(update.user_id, update.profile.version, top, flush=True)

    or hand each to a function: `subscriber.run(handle)`. For asyncio there is `AsyncProfileSubscriber`.

    With a `group`, its members share the partitions, and Kafka keeps the group's place: `start` counts only where it
    has none yet. Without, this subscriber reads all partitions, and begins at `start` each time.

    An update comes at least once. It counts as processed when the next one is asked for, and when the `with` block
    is left without an exception; the group's place is kept behind it within a second, at a rebalance and at the end.
    `auto_commit=False` leaves that to `commit()`. A version that is not above the last one of the same user is
    dropped, so that after a rebalance nothing is handed over twice to a subscriber that is still there.

    A million users of 2.2 KB in 12 partitions: a snapshot takes 21 s and 255 MB at its peak, the first user comes after
    1.3 s (a partition is read before it is handed over); from the beginning it is 17 s and 273 MB, 0.2 s to the first
    (`pytest -m slow -s tests/test_client_startup.py`, two cores, Kafka on the same machine). Memory does not grow with
    the profiles: a snapshot takes some 200 bytes for each user of one partition besides.

    Args:
        settings: default: from the environment.
        group: the consumer group; None for a reader of its own.
        start: `beginning` (the latest profile of every user, of some more than one), `now`, or `snapshot`: the latest
            state of every user once, then what changes.
        auto_commit: keep the place of what is processed, else only in `commit()`.
        handle_signals: Ctrl-C and SIGTERM call `stop()`; in the main thread only.
        poll_records: records taken from Kafka at once; all of them have to be processed within five minutes.
        remember_users: versions of at least so many users are remembered.
        snapshot_memory_mb: values of a snapshot in memory (MiB); more of one partition go to a temporary file.
        on_snapshot: called with the progress of a snapshot after every few thousand records.
        registry: Prometheus metrics `streamer_client_…` are registered here while the subscriber is open.

    Raises SettingsError, BrokerError without a broker or when it refuses us, TopicsError without a profile topic.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        group: str | None = None,
        start: Start = "beginning",
        auto_commit: bool = True,
        handle_signals: bool = False,
        poll_records: int = 500,
        remember_users: int = 100_000,
        snapshot_memory_mb: int = 64,
        on_snapshot: Callable[[Progress], None] | None = None,
        registry: "CollectorRegistry | None" = None,
    ) -> None:
        _check(group, start)
        self.counters = Counters()
        self._auto_commit = auto_commit
        self._versions = Versions(remember_users)
        self._current: Record | None = None  # handed over last, perhaps still worked on
        self._pending: deque[Record] = deque()  # fetched, not yet handed over
        self._stopped, self._failed = Event(), False
        self._abandoned = False
        with ExitStack() as stack:
            if handle_signals:
                stack.enter_context(signals_call(self.stop))
            if registry is not None:
                stack.enter_context(registered(self.counters, registry))
            self._source = Source(
                settings or load(),
                self.counters,
                group=group,
                start=start,
                auto_commit=auto_commit and group is not None,
                poll_records=poll_records,
            )
            stack.callback(self._source.close)
            self._at_close: ExitStack | None = stack.pop_all()
        self._snapshot: Iterator[Record | None] = iter(())
        if start == "snapshot":
            self._snapshot = self._source.snapshot(snapshot_memory_mb << 20, on_snapshot or (lambda progress: None))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._abandoned:
            self._current = None
        self.close()

    def __iter__(self) -> Iterator[Update]:
        return self

    def __next__(self) -> Update:
        """The next update; ends after `stop()`. A broker that is away for a while is waited for.

        Raises BrokerError when Kafka refuses us, ClosedError after that and after `close()`.
        """
        if self._at_close is None or self._failed:
            raise ClosedError("this subscriber is closed or has failed: make a new one")
        if self._abandoned:
            raise StopIteration
        self._current, self._failed = None, True
        update = self._next()
        self._failed = False
        if update is None:
            raise StopIteration
        return update

    def run(self, handle: Callable[[Update], object]) -> None:
        """Call `handle` with every update until `stop()`."""
        for update in self:
            handle(update)

    def stop(self) -> None:
        """End the iteration before its next update, at the latest after a quarter of a second. From any thread."""
        self._stopped.set()

    def abandon(self) -> None:
        """`stop()`, and the update at hand or on its way never counts as processed. From any thread."""
        self._abandoned = True
        self.stop()

    def commit(self) -> None:
        """Keep the group's place behind all that was handed over, the update at hand included unless it is abandoned.

        Raises CommitError when it was not kept: what was handed over since the last time comes again, to us or to
        another member. Does nothing without a group.
        """
        self._source.commit(self._unprocessed() if self._abandoned else self._pending)

    def close(self) -> None:
        """Leave the group and the broker. With `auto_commit` its place is kept, before the update at hand."""
        if self._at_close is None:
            return
        at_close, self._at_close = self._at_close, None
        with at_close:
            if self._auto_commit:
                self._commit_at_end()

    def _commit_at_end(self) -> None:
        try:
            self._source.commit(self._unprocessed())
        except BrokerError as exc:
            log.warning("position not committed at the end, some updates will come again", reason=str(exc))

    def _unprocessed(self) -> Iterable[Record]:
        return self._pending if self._current is None else (self._current, *self._pending)

    def _next(self) -> Update | None:
        while not self._stopped.is_set():
            record = self._take()
            if record is not None and (update := self._update(record)) is not None:
                self._current = record
                return update
        return None

    def _take(self) -> Record | None:
        """The next record; None when there is none yet."""
        for record in self._snapshot:
            return record
        if not self._pending:
            self._pending.extend(self._source.fetch())
        return self._pending.popleft() if self._pending else None

    def _update(self, record: Record) -> Update | None:
        """What a record says, None when it is not new or not a profile."""
        counters = self.counters
        try:
            update = decode_update(record)
        except ValueError as exc:
            counters.undecodable += 1
            log.warning("not a profile, skipped", partition=record.partition, offset=record.offset, reason=str(exc))
            return None
        if update.profile is None:
            self._versions.forget(update.user_id)
            counters.erased += 1
        elif self._versions.advance(update.user_id, update.profile.version):
            counters.updated += 1
        else:
            counters.repeated += 1
            return None
        return update


def _check(group: str | None, start: str) -> None:
    if start not in get_args(Start):
        raise SettingsError(f"start={start!r}: it has to be one of {', '.join(get_args(Start))}")
    if group is not None and start == "snapshot":
        raise SettingsError("a snapshot is of all partitions, a group shares them: leave out group=, or start=")
