"""Publish: what users' rows say becomes profiles."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.model.interests import Scales
from streamer.model.tag_mix import Learned, Work
from streamer.pipeline import gate, profile_json
from streamer.pipeline.gate import Assessed, Thresholds
from streamer.pipeline.layout import Users, recent_items
from streamer.pipeline.moves import moves
from streamer.pipeline.population import Mind
from streamer.pipeline.profile_json import Book, Telling, Written
from streamer.pipeline.space import ItemSpace
from streamer.pipeline.top_interests import TopInterests, top_interests
from streamer.profile import Profile

_decode = msgspec.json.Decoder(Profile).decode


class Names(NamedTuple):
    """From hashes back to names; None where nobody knows it any more."""

    item: Callable[[int], str | None]
    tag: Callable[[int], str | None]


class Policy(NamedTuple):
    """When profiles are published, how interests fade, and how many are shown; see the settings of the same names."""

    thresholds: Thresholds
    scales: Scales
    interests: int


class World(NamedTuple):
    """What profiles are made from: the same for all users of a partition."""

    users: Users
    space: ItemSpace
    names: Names
    policy: Policy
    learned: Learned
    work: Work

    @property
    def mind(self) -> Mind:
        """What shares depend on beside the users."""
        return Mind(self.space.catalogue.population, self.policy.scales, self.learned, self.work)

    def item_book(self) -> Book:
        """Items by hash."""
        return Book(self.space.catalogue.table, self.space.catalogue.quoted_ids, self.names.item)

    def tag_book(self) -> Book:
        """Tags by hash."""
        return Book(self.space.catalogue.tag_table, self.space.catalogue.quoted_tags, self.names.tag)


def assess(world: World, slots: NDArray[np.int64]) -> Assessed:
    """Hold every user against what was last published. Changes nothing."""
    return gate.assess(world.users, slots, world.mind, world.policy.thresholds)


def interests(world: World, slots: NDArray[np.int64], assessed: Assessed) -> TopInterests:
    """The strongest interests of users. Changes nothing."""
    policy = world.policy
    catalogue = world.space.catalogue
    return top_interests(world.users, slots, assessed, catalogue, policy.scales.half_life_ms, policy.interests)


def fold_in(world: World, slots: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors f32[n, dim] of users. Changes nothing."""
    return world.space.fold_in(*recent_items(world.users, slots))


def profile(world: World, slot: int, user_id: str, reasons: int = 0, cause: str = "") -> Profile:
    """One user's profile as of now, with what changed for these `reasons`. Changes nothing."""
    slots = np.array([slot], np.int64)
    telling = Telling([user_id.encode()], [cause.encode()], np.array([reasons], np.uint8), np.ones(1))
    return _decode(write(world, slots, assess(world, slots), fold_in(world, slots), telling).values[0])


def write(
    world: World, slots: NDArray[np.int64], assessed: Assessed, vectors: NDArray[np.float32], telling: Telling
) -> Written:
    """Profiles as JSON. Changes nothing."""
    users = world.users
    return profile_json.write(
        users,
        slots,
        interests(world, slots, assessed),
        moves(users, slots, assessed, telling.reasons, telling.cosine),
        telling,
        vectors,
        world.space.model,
        world.item_book(),
        world.tag_book(),
    )
