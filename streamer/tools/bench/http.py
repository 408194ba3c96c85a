"""The API under load: how long a profile takes while events flow. Everybody asked for is in the worker's memory."""

import asyncio
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np

from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools.bench import http_load
from streamer.tools.bench.http_load import Asked, Load
from streamer.tools.bench.latency import SETTLE_S, feed
from streamer.tools.bench.peer import WORKER, Peer, has_learned, until
from streamer.tools.bench.stage import Stage, fill, progress_of
from streamer.tools.bench.world import World, events
from streamer.tools.demo_worker import free_port

EXTRA_S = 1.0  # events flow a little longer than questions


class Size(NamedTuple):
    """Users known before it begins, events a second, questions a second, and how long each pair is held."""

    users: int
    events: tuple[int, ...]
    questions: int
    seconds: float


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds from when a question was due to the end of its answer; `events_per_second` was really sent."""

    events_per_second: float
    questions_per_second: float
    refused: int
    p50: float
    p90: float
    p99: float
    max: float


def measure(stage: Stage, size: Size) -> dict[str, Answers]:
    """By events a second. Raises StreamerError when the worker dies or stalls."""
    stage = stage.topics("http-")
    run = stage.peer("worker", http_port=free_port(stage.settings.http_host, 0), http_rate=0)
    known = World(users=size.users, items=5_000, events=3 * size.users, tour=True, step_ms=1_000)
    fill(run, known)
    found, sent = {}, known.events
    with progress_of(run) as progress, Peer(WORKER, run, stage.home / "http.log", stage.cores.peer) as peer:
        for rate in size.events:
            until(peer, lambda: progress.events() >= sent and has_learned(peer))  # noqa: B023 - asked for at once
            count = round(rate * (size.seconds + EXTRA_S))
            live = events(known._replace(events=count, tour=False, at=sent)) if count else iter(())
            found[str(rate)] = asyncio.run(_answers(run, size, islice(live, count), rate))
            sent += count
    for rate_name, at in found.items():
        stage.say(f"{rate_name} events a second: p50 {at.p50:.1f} ms, p99 {at.p99:.1f} ms")
    return found


async def _answers(run: Settings, size: Size, lines: "islice[tuple[str, bytes, bytes]]", rate: int) -> Answers:
    load = Load(run.http_host, run.http_port, size.users, size.questions, size.seconds, SETTLE_S)
    asking = await asyncio.create_subprocess_exec(*http_load.command(load), stdout=asyncio.subprocess.PIPE)
    took_s = await feed(run, lines, rate) if rate else 0.0
    output, _ = await asking.communicate()
    if asking.returncode:
        raise StreamerError(f"asking ended with exit code {asking.returncode}")
    return _summary(msgspec.json.decode(output, type=Asked), size, rate * (size.seconds + EXTRA_S) / (took_s or 1))


def _summary(asked: Asked, size: Size, events_per_second: float) -> Answers:
    p50, p90, p99 = np.percentile(asked.ms, [50, 90, 99]).tolist()
    return Answers(
        events_per_second=round(events_per_second, 1),
        questions_per_second=round(len(asked.ms) / (size.seconds - SETTLE_S), 1),
        refused=asked.refused,
        p50=round(p50, 2),
        p90=round(p90, 2),
        p99=round(p99, 2),
        max=round(max(asked.ms), 2),
    )
