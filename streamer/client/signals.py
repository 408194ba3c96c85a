"""Ctrl-C and SIGTERM as a request to stop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM inside the block calls `stop`; the next one does what it did before.

    Raises ValueError outside the main thread, where Python takes no signals.
    """

    def on_signal(*_: object) -> None:
        restore()
        stop()

    before = {number: signal.signal(number, on_signal) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    finally:
        restore()
