"""The client's forms for asyncio on a real broker."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

from streamer.client import (
    AsyncEventProducer,
    AsyncProfileSubscriber,
    Click,
    ClosedError,
    InvalidEventError,
    ProfileSubscriber,
)
from streamer.engine.topics import create_topics
from streamer.errors import TopicsError
from streamer.settings import Settings, load
from streamer.tools.kafka import EmbeddedKafka
from tests.client_world import brief, printed_example, records, take, write
from tests.worker_process import until


@pytest.fixture
def settings(kafka: EmbeddedKafka, prefix: str) -> Settings:
    settings = load(brokers=kafka.brokers, topic_prefix=prefix, partitions=2)
    create_topics(settings)
    return settings


def threads_of(form: type) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(form.__name__)]


async def test_updates_come_one_after_another_until_stop(settings: Settings) -> None:
    write(settings, ("ada", 1), ("ada", 2), ("ada", None))
    seen = []
    async with AsyncProfileSubscriber(settings) as subscriber:
        async for update in subscriber:
            seen.append(brief(update))
            if len(seen) == 3:
                subscriber.stop()
        assert subscriber.counters.erased == 1
    assert seen == [("ada", 1), ("ada", 2), ("ada", None)]
    until(lambda: not threads_of(AsyncProfileSubscriber), "the end of its thread")


async def test_the_loop_goes_on_while_nothing_is_published(settings: Settings) -> None:
    async with AsyncProfileSubscriber(settings) as subscriber:
        waiting = asyncio.ensure_future(anext(subscriber))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        await asyncio.to_thread(write, settings, ("ada", 1))
        assert brief(await waiting) == ("ada", 1)


async def test_a_cancelled_task_ends_at_once_and_what_it_had_comes_again(settings: Settings, prefix: str) -> None:
    write(settings, ("ada", 1), ("ada", 2))
    got = asyncio.Event()

    async def work() -> None:
        async with AsyncProfileSubscriber(settings, group=prefix) as subscriber:
            async for _ in subscriber:
                got.set()
                await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await got.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with ProfileSubscriber(settings, group=prefix) as subscriber:
        assert take(subscriber, 2) == [("ada", 1), ("ada", 2)]


async def test_what_came_for_a_call_that_was_cancelled_comes_again(settings: Settings, prefix: str) -> None:
    write(settings, ("ada", 1), ("ada", 2))
    async with AsyncProfileSubscriber(settings, group=prefix) as subscriber:
        waiting = asyncio.ensure_future(anext(subscriber))
        await asyncio.sleep(0)  # its thread is asked
        until(lambda: subscriber.counters.updated, "its thread to have the update")  # while the loop stands still
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(StopAsyncIteration):
            await anext(subscriber)
        await subscriber.commit()
    with ProfileSubscriber(settings, group=prefix) as plain:
        assert take(plain, 1) == [("ada", 1)]


async def test_cancelling_while_it_waits_ends_its_thread(settings: Settings) -> None:
    async with AsyncProfileSubscriber(settings) as subscriber:
        waiting = asyncio.ensure_future(anext(subscriber))
        for _ in range(1000):  # until its thread is at it
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    until(lambda: not threads_of(AsyncProfileSubscriber), "the end of its thread")


async def test_a_commit_keeps_the_place_behind_the_update_at_hand(settings: Settings, prefix: str) -> None:
    write(settings, ("ada", 1), ("ada", 2))
    async with AsyncProfileSubscriber(settings, group=prefix, auto_commit=False) as subscriber:
        await anext(subscriber)
        await subscriber.commit()
    with ProfileSubscriber(settings, group=prefix) as plain:
        assert take(plain, 1) == [("ada", 2)]


async def test_tasks_share_a_producer(settings: Settings) -> None:
    async with AsyncEventProducer(settings) as producer:
        await asyncio.gather(*(producer.send(Click(f"e{n}", f"u{n}", "mug", 1)) for n in range(20)))
        await producer.forget_item("mug")
        await producer.flush()
        with pytest.raises(InvalidEventError):
            await producer.send(Click("", "u", "mug", 1))
    assert len(records(settings, "clicks", 20)) == 20
    assert records(settings, "items", 1)[0].value is None


async def test_what_keeps_it_from_opening_is_raised_and_leaves_no_thread(kafka: EmbeddedKafka, prefix: str) -> None:
    with pytest.raises(TopicsError, match="streamer topics create"):
        async with AsyncEventProducer(load(brokers=kafka.brokers, topic_prefix=prefix)):
            pass
    until(lambda: not threads_of(AsyncEventProducer), "the end of its thread")


async def test_outside_its_block_it_says_so() -> None:
    with pytest.raises(ClosedError, match="async with"):
        await AsyncEventProducer().flush()


def test_the_printed_forms_for_asyncio_run(settings: Settings) -> None:
    environment = os.environ | {"STREAMER_BROKERS": settings.brokers, "STREAMER_TOPIC_PREFIX": settings.topic_prefix}
    subprocess.run([sys.executable, "-c", printed_example(AsyncEventProducer)], env=environment, check=True)
    assert records(settings, "clicks", 1)[0].key == b"ada"
    write(settings, ("ada", 3), ("ada", None))
    command = [sys.executable, "-c", printed_example(AsyncProfileSubscriber)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ada 3\n"
        assert process.stdout.readline() == "ada was erased\n"
        process.terminate()
