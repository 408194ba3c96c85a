"""Events a second of one process on one core: streamer, whole and light job, its peers, and the floor.

A peer's rate is taken between two commits, the first one that covers WARM of the backlog and the last one before its
end: compilers and caches are warm, and no interval between commits is counted that had nothing left to do. Streamer
has to be through with everything: every event committed, and what they teach about items learned.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.errors import StreamerError
from streamer.settings import Settings
from streamer.tools.bench import kafka_streams, light_job, quix, world
from streamer.tools.bench.kafka_streams import MissingPeerError
from streamer.tools.bench.light_worker import LIGHT
from streamer.tools.bench.peer import PATIENCE_S, WORKER, Peer, has_learned, python, until, wait_for
from streamer.tools.bench.reading import check_counts, count_ours
from streamer.tools.bench.stage import Progress, Stage, fill, progress_of, renew_outputs
from streamer.tools.bench.window import Cost, cost, moment, reach
from streamer.tools.bench.world import World
from streamer.tools.demo_worker import free_port

WARM: Final = 0.3  # of the backlog
ENOUGH: Final = 0.01  # of the backlog, of a peer that is too slow for all of it
PEER_STOP_S: Final = 2.0  # all that is looked at is committed by then
OURS: Final = ("streamer", "streamer_light")
PEERS: Final = (*kafka_streams.GUARANTEES, "quix_streams", "stock_faust", "floor")


class Size(NamedTuple):
    """How much is measured. The stock agent is too slow for the whole backlog: it gets so many seconds."""

    world: World
    rounds: int
    faust_s: float


class Speed(msgspec.Struct, frozen=True):
    """One run. `profiles` are those published an event; `cost` is known of workers."""

    events_per_second: float
    cpu_us: float
    profiles: float = 0.0
    cost: Cost | None = None


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """Medians over alternating rounds, by system; `ratios` are streamer's to the peers', `cost` is of median rounds."""

    workload: dict[str, int]
    events_per_second: dict[str, float]
    ratios: dict[str, float]
    ratios_light: dict[str, float]
    cpu_us_per_event: dict[str, float]
    profiles_per_event: dict[str, float]
    cost: dict[str, Cost]
    rounds: dict[str, list[float]]
    left_out: dict[str, str]


class Programs(NamedTuple):
    """How to start the peers that can be had here, and why the others cannot."""

    commands: dict[str, Callable[[Settings], list[str]]]
    variables: dict[str, Mapping[str, str]]
    left_out: dict[str, str]


class Mark(NamedTuple):
    """Events committed at a time, and CPU seconds used by then."""

    at_s: float
    events: int
    cpu_s: float


def measure(stage: Stage, size: Size) -> Speeds:
    """All systems on the same events. Raises StreamerError when one dies, stalls or counts wrong."""
    stage = stage.topics("speed-")
    programs = _programs(stage)
    fill(stage.settings, size.world)
    wanted = world.counts(size.world)
    speeds: dict[str, list[Speed]] = {name: [] for name in (*OURS, *programs.commands, "floor")}
    for number in range(1, size.rounds + 1):
        for name, past in speeds.items():
            run = stage.peer(f"{name}{number}", http_port=free_port(stage.settings.http_host, 0))
            renew_outputs(run)
            past.append(_run(name, run, stage, size, wanted, programs))
            stage.say(f"round {number}: {name} {past[-1].events_per_second:,.0f} events a second")
    return summarise(size.world, speeds, programs.left_out)


def summarise(backlog: World, speeds: Mapping[str, list[Speed]], left_out: dict[str, str]) -> Speeds:
    """Medians and ratios."""
    rates = {name: median(speed.events_per_second for speed in past) for name, past in speeds.items()}
    middle = {n: sorted(past, key=lambda s: s.events_per_second)[len(past) // 2] for n, past in speeds.items()}
    peers = [name for name in PEERS if name in rates]
    return Speeds(
        workload={"users": backlog.users, "items": backlog.items, "events": backlog.events},
        events_per_second={name: round(rate, 1) for name, rate in rates.items()},
        ratios={name: round(rates["streamer"] / rates[name], 3) for name in peers},
        ratios_light={name: round(rates["streamer_light"] / rates[name], 3) for name in peers},
        cpu_us_per_event={name: round(median(s.cpu_us for s in past), 3) for name, past in speeds.items()},
        profiles_per_event={name: round(speed.profiles, 4) for name, speed in middle.items()},
        cost={name: speed.cost for name, speed in middle.items() if speed.cost is not None},
        rounds={name: [round(s.events_per_second, 1) for s in past] for name, past in speeds.items()},
        left_out=left_out,
    )


def _programs(stage: Stage) -> Programs:
    programs = Programs({}, {}, {})
    try:
        class_path = kafka_streams.prepare(stage.home)
        for name, guarantee in kafka_streams.GUARANTEES.items():
            programs.commands[name] = partial(kafka_streams.command, class_path, guarantee=guarantee)
    except MissingPeerError as exc:
        programs.left_out.update(dict.fromkeys(kafka_streams.GUARANTEES, str(exc)))
    try:
        programs.variables["quix_streams"] = quix.variables(quix.prepare())
        programs.commands["quix_streams"] = lambda _: python("streamer.tools.bench.quix_streams")
    except MissingPeerError as exc:
        programs.left_out["quix_streams"] = str(exc)
    programs.commands["stock_faust"] = lambda _: python("streamer.tools.bench.stock_faust")
    for name, why in programs.left_out.items():
        stage.say(f"left out: {name}: {why}")
    return programs


def _run(name: str, run: Settings, stage: Stage, size: Size, wanted: NDArray[np.int64], programs: Programs) -> Speed:
    """One round of one system."""
    if name == "floor":
        return _floor(run, stage, size.world.events)
    if name in OURS:
        return _streamer(run, stage, size.world, wanted, light=name != "streamer")
    command, variables = programs.commands[name](run), programs.variables.get(name, {})
    limit_s = size.faust_s if name == "stock_faust" else PATIENCE_S
    log = _log(stage, run)
    with progress_of(run) as progress, Peer(command, run, log, stage.cores.peer, variables, PEER_STOP_S) as peer:
        marks = _marks(peer, progress, size.world.events, limit_s)
        profiles = progress.records("profiles") / marks[-1].events
    complete = marks[-1].events == size.world.events
    check_counts(run, lambda rows: map(light_job.events_of, rows), wanted, complete=complete)
    first, last = between(marks, size.world.events)
    events, seconds = last.events - first.events, last.at_s - first.at_s
    return Speed(events / seconds, 1e6 * (last.cpu_s - first.cpu_s) / events, profiles)


def _streamer(run: Settings, stage: Stage, backlog: World, wanted: NDArray[np.int64], *, light: bool) -> Speed:
    run = run.model_copy(update=LIGHT) if light else run
    command = python("streamer.tools.bench.light_worker") if light else WORKER
    with progress_of(run) as progress, Peer(command, run, _log(stage, run), stage.cores.peer) as peer:
        before = reach(peer, stage.broker_pid, round(WARM * backlog.events))
        until(peer, lambda: progress.events() == backlog.events)
        until(peer, lambda: has_learned(peer))
        if light and progress.records("item-signals"):
            raise StreamerError("the light job was to learn nothing about items, and did")
        spent = cost(before, moment(peer, stage.broker_pid), run.partitions)
    check_counts(run, count_ours(run), wanted, complete=True)
    return Speed(spent.events_per_second, spent.cpu_us, spent.profiles, spent)


def _floor(run: Settings, stage: Stage, events: int) -> Speed:
    command = python("streamer.tools.bench.floor", str(events))
    with Peer(command, run, _log(stage, run), stage.cores.peer) as peer:
        line = wait_for(peer, r"(\{.*\})\n", PATIENCE_S)[1]
    result = msgspec.json.decode(line, type=dict[str, float])
    return Speed(result["events"] / result["seconds"], 1e6 * result["cpu_seconds"] / result["events"])


def _marks(peer: Peer, progress: Progress, events: int, limit_s: float) -> list[Mark]:
    """One for each commit that is seen, until all events are committed, or after `limit_s` ENOUGH of them."""
    wait_for(peer, light_job.FIRST_EVENT, PATIENCE_S)
    marks = [Mark(time.monotonic(), 0, peer.cpu_s())]

    def enough() -> bool:
        committed = progress.events()
        if committed > marks[-1].events:
            marks.append(Mark(time.monotonic(), committed, peer.cpu_s()))
        late = time.monotonic() > marks[0].at_s + limit_s
        return committed == events or (late and committed >= ENOUGH * events)

    until(peer, enough)
    return marks


def between(marks: list[Mark], events: int) -> tuple[Mark, Mark]:
    """The two marks that a rate is taken between; all of the run where it has too few."""
    reached = min(marks[-1].events, events)
    usable = [mark for mark in marks if mark.events >= WARM * reached]
    if usable[-1].events == events:
        usable.pop()
    if len(usable) > 1 and usable[-1].events - usable[0].events >= reached / 3:
        return usable[0], usable[-1]
    return marks[0], marks[-1]


def _log(stage: Stage, run: Settings) -> Path:
    return stage.home / f"{run.app_id}.log"
