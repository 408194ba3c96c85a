"""What serving sees of a partition: users with a profile, and only those."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from streamer.engine.engine import Engine
from streamer.engine.store import USER
from streamer.engine.view import View
from streamer.pipeline.rows import blank
from streamer.serving import answers
from streamer.serving.feed import Feed
from tests.pipeline_world import T0
from tests.test_partition import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A user whose event is applied, published and stored."""
    made = World(tmp_path)
    made.click(0)
    made.checkpoint()
    yield made
    made.store.close()


def view_of(world: World) -> View:
    """Of one partition; without Kafka, which it asks for other workers' users and for progress only."""
    engine = Engine(world.settings, world.partition.shared, None, lambda *_: None, 0)  # type: ignore[arg-type]
    engine.partitions, engine.ready = {0: world.partition}, True
    return View(world.settings, engine, None, Feed(), None)  # type: ignore[arg-type]


def drop_state(world: World) -> None:
    """What `streamer reset --drop-state` leaves of the user, and a worker that starts with it."""
    world.store.write([(USER + b"ann", blank(world.store.get(USER + b"ann") or b""))], 10)
    world.open()


def test_event_that_is_late_or_of_the_same_millisecond_changes_the_etag(world: World) -> None:
    view, tags = view_of(world), set()
    for late in (0, 0, 5):
        world.click(len(tags) + 1, T0 - late)
        profile = view.profile("ann")
        assert profile is not None
        assert (profile.version, profile.as_of) == (1, T0)
        tags.add(answers.of_profile(make_mocked_request("GET", "/"), profile).headers["ETag"])
    assert len(tags) == 3


async def test_user_of_whom_nothing_is_left_but_the_version_is_unknown(world: World) -> None:
    assert view_of(world).profile("ann") is not None
    drop_state(world)
    view = view_of(world)
    assert view.profile("ann") is None
    assert view.history("ann", 10) is None
    assert (await view.users("a", 10)).users == ()


async def test_user_who_comes_back_after_the_state_was_dropped_goes_on_with_the_versions(world: World) -> None:
    drop_state(world)
    world.click(1)
    profile = view_of(world).profile("ann")
    assert profile is not None
    assert profile.version == 1  # until it is published anew
    assert [user.user_id for user in (await view_of(world).users("a", 10)).users] == ["ann"]
