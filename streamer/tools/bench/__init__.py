"""`streamer bench`: events a second of one worker on one core, beside its peers, in one run on an embedded Kafka.

The broker, and whatever loads and watches, have one core; the process under test has another. All peers read the same
backlog; rounds alternate, so that what disturbs the machine disturbs all.
"""

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
from rich.console import Console

from streamer.settings import Settings
from streamer.tools.bench import memory, rounds
from streamer.tools.bench.cores import choose, machine, pinned, versions
from streamer.tools.bench.report import PEERS, Report, show, summarise
from streamer.tools.bench.stage import Stage, fill, renew_outputs
from streamer.tools.bench.world import World
from streamer.tools.kafka import EmbeddedKafka
from streamer.tools.stopping import signals_unwind


class Plan(NamedTuple):
    """How much is measured. `few` and `many` users, with as many events, share a cache of `cache_users`."""

    world: World
    rounds: int
    faust_s: float
    few: World
    many: World
    cache_users: int


# Some twenty seconds a round: worker and broker are in their stride. The cache is full with few users already.
FULL = Plan(
    world=World(users=50_000, items=10_000, events=600_000),
    rounds=3,
    faust_s=20.0,
    few=World(users=100_000, items=10_000, events=1_200_000, tour=True),
    many=World(users=1_000_000, items=10_000, events=1_200_000, tour=True),
    cache_users=50_000,
)
QUICK = Plan(
    world=World(users=10_000, items=2_000, events=100_000),
    rounds=1,
    faust_s=4.0,
    few=World(users=12_000, items=2_000, events=40_000, tour=True),
    many=World(users=40_000, items=2_000, events=40_000, tour=True),
    cache_users=10_000,
)


# Settings of a cluster that do not fit a broker and a worker on this machine alone.
ALONE = {"security_protocol": "PLAINTEXT", "replication": -1, "advertised_url": "", "http_host": "127.0.0.1"}


def run(settings: Settings, *, as_json: bool, quick: bool) -> int:
    """Measure and print; returns the exit code, 0. Raises StreamerError when Kafka or a peer does not start or dies.

    Needs some 5 GB of disk (`--quick`: 1 GB) in `data_dir` where that is set, else in the system's temporary directory;
    all of it is removed.
    """
    console = Console(stderr=True, highlight=False)
    parent = settings.data_dir if "data_dir" in settings.model_fields_set else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with signals_unwind(), TemporaryDirectory(prefix="streamer-bench-", dir=parent) as home:
        report = _measure(settings, Path(home), QUICK if quick else FULL, console)
    if as_json:
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        show(report, Console(highlight=False))
    return 0


def _measure(settings: Settings, home: Path, plan: Plan, console: Console) -> Report:
    cores = choose()
    facts = machine(cores)
    with pinned(cores.broker), EmbeddedKafka(home / "kafka") as kafka:
        ours = settings.model_copy(update={"brokers": kafka.brokers, **ALONE})
        speeds = _speeds(_stage(Stage(ours, home, cores, plan.world), "speed-", console), plan, console)
        few, many = (
            memory.resident(
                _stage(Stage(ours, home, cores, w), f"memory{w.users}-", console), f"memory{w.users}", plan.cache_users
            )
            for w in (plan.few, plan.many)
        )
    return summarise(facts, versions(), plan.world, speeds, memory.bytes_per_user(settings), few, many)


def _stage(stage: Stage, prefix: str, console: Console) -> Stage:
    """The stage with its backlog loaded into topics of its own."""
    world = stage.world
    console.print(f"loading {world.events:,} events of {world.users:,} users and {world.items:,} items")
    settings = stage.settings.model_copy(update={"topic_prefix": prefix})
    asyncio.run(fill(settings.model_copy(update={"app_id": f"memory{world.users}"}), world))
    return stage._replace(settings=settings)


def _speeds(stage: Stage, plan: Plan, console: Console) -> dict[str, list[rounds.Speed]]:
    speeds: dict[str, list[rounds.Speed]] = {name: [] for name in PEERS}
    for number in range(1, plan.rounds + 1):
        renew_outputs(stage.peer(f"streamer{number}"))
        for name, past in speeds.items():
            past.append(_run(name, number, stage, plan))
            console.print(f"round {number}: {name} {past[-1].per_second:,.0f} events a second")
    return speeds


def _run(name: str, number: int, stage: Stage, plan: Plan) -> rounds.Speed:
    """One round of one peer."""
    match name:
        case "streamer":
            return rounds.streamer(stage, f"{name}{number}")
        case "stock_faust":
            return rounds.stock_faust(stage, f"{name}{number}", plan.faust_s)
        case _:
            return rounds.floor(stage, f"{name}{number}")
