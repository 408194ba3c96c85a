"""The same for asyncio: each subscriber and producer in a thread of its own, so that the loop never waits for Kafka.

Threads instead of another Kafka library: what the plain forms promise holds here without being written twice. A step
through the thread takes some 0.1 ms.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from streamer.client.counters import Counters
from streamer.client.errors import ClosedError
from streamer.client.producer import EventProducer
from streamer.client.subscriber import ProfileSubscriber
from streamer.client.updates import Update
from streamer.events import Item, UserEvent

T = TypeVar("T")
Plain = TypeVar("Plain", ProfileSubscriber, EventProducer)


class _InThread(Generic[Plain]):
    """A plain form that lives in one thread, made by `async with` and closed behind it."""

    def __init__(self, make: Callable[[], Plain]) -> None:
        self._make: Callable[[], Plain] = make
        self._made: Plain | None = None
        self._thread = ThreadPoolExecutor(1, type(self).__name__)

    async def __aenter__(self) -> Self:
        try:
            await self._run(self._open)
        except BaseException:  # cancelled, most often: the thread may be at it still
            self._thread.submit(self._abandon)
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._run(self._plain.__exit__, kind, error, trace)
        finally:
            self._thread.shutdown(wait=False)

    def _open(self) -> None:
        self._made = self._make()

    def _abandon(self) -> None:
        if self._made is not None:
            self._made.close()

    @property
    def _plain(self) -> Plain:
        if self._made is None:
            raise ClosedError("it is not open: use it inside `async with`")
        return self._made

    async def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


class AsyncProfileSubscriber(_InThread[ProfileSubscriber]):
    """`ProfileSubscriber` for asyncio, with its arguments but `handle_signals`; what that says of updates holds here.

        import asyncio

        from streamer.client import AsyncProfileSubscriber

        async def follow() -> None:
            async with AsyncProfileSubscriber(group="my-service") as subscriber:
                async for update in subscriber:
                    said = "was erased" if update.profile is None else update.profile.version
                    print(update.user_id, said, flush=True)

        asyncio.run(follow())

    Cancelling the task, or a time-out around it, ends the iteration: the update at hand or on its way comes again, to
    the group's next member. In `on_snapshot` you are in the thread.
    Raises as `ProfileSubscriber` does, from `async with`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(lambda: ProfileSubscriber(*arguments, **options))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        """The next update; ends after `stop()`."""
        try:
            update: Update | None = await self._run(next, self._plain, None)
        except asyncio.CancelledError:
            self._plain.abandon()  # the thread waits for an update that nobody takes, or has it already
            raise
        if update is None:
            raise StopAsyncIteration
        return update

    @property
    def counters(self) -> Counters:
        """What was read so far."""
        return self._plain.counters

    async def commit(self) -> None:
        """Keep the group's place behind the update at hand. Raises CommitError."""
        await self._run(self._plain.commit)

    def stop(self) -> None:
        """End the iteration before its next update."""
        self._plain.stop()


class AsyncEventProducer(_InThread[EventProducer]):
    """`EventProducer` for asyncio, with its arguments; tasks may share one.

        import asyncio
        import time
        import uuid

        from streamer.client import AsyncEventProducer, Click

        async def click() -> None:
            async with AsyncEventProducer() as producer:
                now_ms = time.time_ns() // 1_000_000
                await producer.send(Click(event_id=str(uuid.uuid4()), user_id="ada", item_id="tent-7", ts=now_ms))

        asyncio.run(click())

    `send` returns when the event is checked and on its way; `flush`, and leaving the block, when all are acknowledged.
    Raises as `EventProducer` does.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(lambda: EventProducer(*arguments, **options))

    async def send(self, event: UserEvent | Item) -> None:
        """Send an event, or an item of the catalogue. Raises InvalidEventError and DeliveryError."""
        await self._run(self._plain.send, event)

    async def forget_item(self, item_id: str) -> None:
        """Delete an item from the catalogue. Raises as `send` does."""
        await self._run(self._plain.forget_item, item_id)

    async def flush(self) -> None:
        """Wait until all that was sent is acknowledged. Raises DeliveryError for what was not."""
        await self._run(self._plain.flush)
