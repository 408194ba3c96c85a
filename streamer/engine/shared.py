"""What all partitions of a worker have in common."""

import time
from collections.abc import Callable
from typing import NamedTuple

from streamer.engine.cache import UserCache
from streamer.engine.ranking import Ranking
from streamer.engine.slices import Slices
from streamer.model.interests import Scales
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.decode import Limits
from streamer.pipeline.gate import Thresholds
from streamer.pipeline.layout import Shape
from streamer.pipeline.publish import Policy
from streamer.pipeline.space import ItemSpace
from streamer.settings import Settings
from streamer.upstream import partition_of


class Shared(NamedTuple):
    """Users in memory, the catalogue, and how to judge events and profiles."""

    cache: UserCache
    catalogue: Catalogue
    space: ItemSpace
    ranking: Ranking | None  # None: switched off
    limits: Limits
    policy: Policy
    partitions: int
    publish_within_ms: int
    heartbeat_ms: int
    slices: Slices
    now_ms: Callable[[], int]


def shared_state(settings: Settings) -> Shared:
    """Columns, catalogue and policy of one worker, from its settings."""
    shape = Shape(settings.recent_items, settings.seen_ids, settings.vector_dim)
    catalogue = Catalogue(
        settings.vector_dim,
        lambda item_id: partition_of(item_id.encode(), settings.partitions),
        settings.catalogue_items,
    )
    space, slices, most_bytes = ItemSpace(catalogue, settings.recent_items), Slices(), settings.ranking_mb << 20
    return Shared(
        cache=UserCache(settings.cache_users, shape),
        catalogue=catalogue,
        space=space,
        ranking=Ranking(space, settings.partitions, most_bytes, slices) if most_bytes else None,
        limits=Limits(settings.max_event_bytes, settings.future_ms, settings.too_old_ms),
        policy=Policy(
            Thresholds(
                settings.interest_enter,
                settings.interest_leave,
                settings.interest_shift,
                settings.vector_cosine,
            ),
            Scales(float(settings.half_life_ms), float(settings.recent_half_life_ms), settings.smoothing),
            settings.interests,
        ),
        partitions=settings.partitions,
        publish_within_ms=settings.publish_within_ms,
        heartbeat_ms=settings.heartbeat_ms,
        slices=slices,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )
