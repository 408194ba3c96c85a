"""What is measured: events a second of one process on one core, from the first applied to the last one committed."""

import time
from collections.abc import Callable

import msgspec

from streamer.errors import StreamerError
from streamer.tools.bench.peer import Peer, Samples, total, wait_for
from streamer.tools.bench.stage import LOOK_S, PATIENCE_S, Progress, Stage, progress_of
from streamer.tools.demo_worker import free_port

CHECKPOINTS = "streamer_checkpoint_seconds_count"
STAGES = ("decode", "load", "assemble", "fold", "learn", "gate", "send", "commit", "store")


class Speed(msgspec.Struct, frozen=True):
    """One run of one peer. `cpu_s` is NaN where the system does not tell."""

    events: int
    seconds: float
    cpu_s: float
    details: dict[str, float] = {}

    @property
    def per_second(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU an event."""
        return self.cpu_s / self.events * 1e6


def streamer(stage: Stage, name: str) -> Speed:
    """`streamer worker`, its whole job: until every event is committed, and what they teach about items is learned."""
    settings = stage.peer(name, http_port=free_port(stage.settings.http_host, 0))
    with (
        progress_of(settings) as progress,
        Peer(["streamer", "worker"], settings, stage.home / f"{name}.log", stage.cores.peer) as peer,
    ):
        before = _first_events(peer)
        start_s, start_cpu_s = time.monotonic(), peer.cpu_s()
        _until(peer, lambda: progress.events() == stage.world.events)
        _until(peer, progress.has_learned)
        seconds, cpu_s = time.monotonic() - start_s, peer.cpu_s() - start_cpu_s
        after = peer.samples()
    events = stage.world.events - int(_applied(before))
    checkpoints = total(after, CHECKPOINTS) - total(before, CHECKPOINTS)
    cadence_s = seconds * settings.partitions / checkpoints
    return Speed(events, seconds, cpu_s, {**_details(before, after, events), "checkpoint_s": cadence_s})


def stock_faust(stage: Stage, name: str, seconds: float) -> Speed:
    """The stock agent, for so long: it is too slow for the whole backlog."""
    settings = stage.peer(name)
    with (
        progress_of(settings) as progress,
        Peer(["streamer.tools.bench.stock_faust"], settings, stage.home / f"{name}.log", stage.cores.peer) as peer,
    ):
        start_s = float(wait_for(peer, r"first event at ([\d.]+)\s", PATIENCE_S)[1])
        start_cpu_s = peer.cpu_s()
        at_commit = _last_commit(peer, progress, start_s + seconds)
    events, end_s, cpu_s = at_commit
    return Speed(events, end_s - start_s, cpu_s - start_cpu_s)


def floor(stage: Stage, name: str) -> Speed:
    """Fetch and decode alone."""
    settings = stage.peer(name)
    arguments = ["streamer.tools.bench.floor", str(stage.world.events)]
    with Peer(arguments, settings, stage.home / f"{name}.log", stage.cores.peer) as peer:
        line = wait_for(peer, r"(\{.*\})\n", PATIENCE_S)[1]
    result = msgspec.json.decode(line, type=dict[str, float])
    return Speed(int(result["events"]), result["seconds"], result["cpu_seconds"])


def _first_events(peer: Peer) -> Samples:
    """The first metrics that count an event."""
    samples: Samples = {}

    def started() -> bool:
        nonlocal samples
        samples = peer.samples()
        return _applied(samples) > 0

    _until(peer, started)
    return samples


def _applied(samples: Samples) -> float:
    return sum(total(samples, "streamer_events_total", type=kind) for kind in ("click", "purchase"))


def _until(peer: Peer, done: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not done():
        peer.check()
        if time.monotonic() > give_up_s:
            raise StreamerError(f"no end after {PATIENCE_S:.0f} s. The log:\n{peer.log()}")
        time.sleep(LOOK_S)


def _last_commit(peer: Peer, progress: Progress, until_s: float) -> tuple[int, float, float]:
    """The last commit before `until_s`, or the first one after it: events, when it was seen, CPU seconds by then."""
    seen = (0, 0.0, 0.0)

    def enough() -> bool:
        nonlocal seen
        events = progress.events()
        if events > seen[0]:
            seen = (events, time.monotonic(), peer.cpu_s())
        return time.monotonic() > until_s and seen[0] > 0

    _until(peer, enough)
    return seen


def _details(before: Samples, after: Samples, events: int) -> dict[str, float]:
    """Per event: profiles, rows, and microseconds by stage."""

    def grown(name: str, **labels: str) -> float:
        return (total(after, name, **labels) - total(before, name, **labels)) / events

    return {
        "profiles": grown("streamer_profiles_published_total"),
        "rows": grown("streamer_checkpoint_rows_total"),
        **{name: 1e6 * grown("streamer_stage_seconds_total", stage=name) for name in STAGES},
    }
