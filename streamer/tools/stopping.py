"""Stopping when asked: Ctrl-C and SIGTERM as an event that loops can wait for, or as an exception that unwinds."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, while the block runs in an event loop of the main thread."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextmanager
def signals_unwind() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt inside the block, so that what was started gets stopped.

    Ctrl-C too: a shell starts what runs in its background with SIGINT ignored.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for `stop`, at most so long; whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), max(0.0, seconds))
    return stop.is_set()
