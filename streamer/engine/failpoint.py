"""Failpoints: in fault tests, a worker fails where it is told to. Inert unless STREAMER_FAILPOINTS is on.

A file `fail` in the data directory holds an action and the name of a step, as `kill after_commit`:

    kill     the process ends, as by SIGKILL
    freeze   it stands still until SIGCONT, as by SIGSTOP
    raise    an exception that nobody expects
    hold     this step waits until the file is gone, while the event loop goes on

The first three remove the file before they act, so that they happen once.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

from streamer.settings import Settings

HOLD_POLL_S: Final = 0.02  # tests only


class Failpoint:
    """Called at every step at which a fault test may want the worker to fail."""

    def __init__(self, settings: Settings) -> None:
        self._file: Path | None = settings.data_dir / "fail" if settings.failpoints else None

    def __call__(self, step: str) -> None:
        """The worker has come to `step`. Raises RuntimeError where a test asked for it."""
        action = self._action(step)
        if action in {"kill", "freeze", "raise"} and self._file is not None:
            self._file.unlink(missing_ok=True)
            if action == "raise":
                raise RuntimeError(f"a fault test asked for this exception at {step}")
            os.kill(os.getpid(), signal.SIGSTOP if action == "freeze" else signal.SIGKILL)

    async def hold(self, step: str) -> None:
        """As a call; besides, wait here as long as a test holds the step."""
        self(step)
        while self._action(step) == "hold":  # noqa: ASYNC110 - what ends it is a file
            await asyncio.sleep(HOLD_POLL_S)

    def _action(self, step: str) -> str:
        """What to do at `step`; empty for nothing."""
        if self._file is None:
            return ""
        try:
            action, wanted = self._file.read_text("utf-8").split()
        except FileNotFoundError:
            return ""
        return action if wanted == step else ""
