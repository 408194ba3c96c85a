"""A worker that does just the light job, for the benchmark: the same code with settings, and nothing learned of items.

    python -m streamer.tools.bench.light_worker

What the peers do: 64 numbers a user, 16 tags in the profile, the row to store and changelog, the profile out once a
second. What goes on beyond theirs: every event id is checked, all tags of an item count, and every event counts
exactly once. The user's vector is folded in from the last items when the profile goes out, not stepped at each event.
"""

import sys
from typing import Any, Final

from streamer import logs
from streamer.engine import warmup
from streamer.engine.app import run_worker
from streamer.pipeline import signals
from streamer.settings import load
from streamer.tools.bench.light_job import DIM, PROFILE_S, TAGS

LIGHT: Final[dict[str, Any]] = {
    "vector_dim": DIM,
    "interests": TAGS,
    "recent_items": 12,  # what a vector is made of: older ones weigh under 7 %
    "seen_ids": 1,
    # Nothing is urgent: a change waits for its second.
    "publish_within_ms": round(1000 * PROFILE_S),
    "interest_enter": 1.0,
    "interest_leave": 1.0,
    "interest_shift": 1.0,
    "vector_cosine": -1.0,
}


class NoSignals(signals.Outbox):
    """An outbox that stays empty."""

    def add(self, batch: signals.Batch) -> None:
        """Let it go."""


def main() -> int:
    """Run until SIGTERM; returns 0."""
    settings = load()
    logs.configure(settings)
    warmup.compile_kernels(settings)  # rehearses learning too, so it comes before that is taken out
    setattr(warmup, "compile_kernels", lambda _: None)  # noqa: B010 - all that no setting can change, here and below
    setattr(signals, "Outbox", NoSignals)  # noqa: B010
    return run_worker(settings)


if __name__ == "__main__":
    sys.exit(main())
