"""How much each part measures: in full some twelve minutes, quick under three."""

from typing import Final, NamedTuple

from streamer.tools.bench import growth, http, latency, memory, scaling, speed
from streamer.tools.bench.world import World

PARTS: Final = ("speed", "latency", "http", "growth", "memory", "scaling")


class Plan(NamedTuple):
    """The size of each part."""

    speed: speed.Size
    latency: latency.Size
    http: http.Size
    growth: growth.Size
    memory: memory.Size
    scaling: scaling.Size


# Some ten seconds a round: all are in their stride, and a run stays under a quarter of an hour.
FULL: Final = Plan(
    speed=speed.Size(World(users=50_000, items=10_000, events=800_000), rounds=3, faust_s=15.0),
    latency=latency.Size(users=20_000, rates=(10, 1_000, 10_000), seconds=20.0),
    http=http.Size(users=20_000, events=(0, 1_000, 10_000), questions=1_000, seconds=20.0),
    growth=growth.Size(
        users=(10_000, 100_000, 1_000_000), items=(1_000, 10_000, 100_000), stretch=200_000, small_cache=50_000
    ),
    memory=memory.Size(
        few=World(users=60_000, items=10_000, events=500_000, tour=True),
        many=World(users=300_000, items=10_000, events=500_000, tour=True),
        cache_users=30_000,
    ),
    scaling=scaling.Size(World(users=50_000, items=10_000, events=500_000)),
)
QUICK: Final = Plan(
    speed=speed.Size(World(users=10_000, items=2_000, events=150_000), rounds=1, faust_s=4.0),
    latency=latency.Size(users=2_000, rates=(500, 2_000), seconds=4.0),
    http=http.Size(users=2_000, events=(0, 500), questions=100, seconds=3.0),
    growth=growth.Size(users=(10_000, 30_000), items=(1_000, 4_000), stretch=30_000, small_cache=10_000),
    memory=memory.Size(
        few=World(users=12_000, items=2_000, events=40_000, tour=True),
        many=World(users=40_000, items=2_000, events=40_000, tour=True),
        cache_users=10_000,
    ),
    scaling=scaling.Size(World(users=10_000, items=2_000, events=100_000)),
)
