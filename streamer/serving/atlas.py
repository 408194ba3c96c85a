"""The map of interests: drawn when asked for, from a sample, beside the event loop; kept for half a minute."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamer.model import tag_map
from streamer.model.tag_map import Places
from streamer.serving.queries import MAX_POINTS
from streamer.serving.view import InterestMap, MapPoint, MapTag, Survey, WorkerView

KEEP_S: Final = 30.0
TAGS: Final = 120  # more names than fit on a page


class Atlas:
    """One worker's map."""

    def __init__(self, view: WorkerView, clock: Callable[[], float] = time.monotonic) -> None:
        self._view, self._clock = view, clock
        self._map: InterestMap | None = None
        self._drawn_at = 0.0
        self._drawing = asyncio.Lock()

    async def map(self, points: int) -> InterestMap:
        """The map with at most so many users on it. Raises NotReady."""
        async with self._drawing:  # however many ask at once, it is drawn once
            if self._map is None or self._clock() - self._drawn_at > KEEP_S:
                survey = await self._view.survey(MAX_POINTS, TAGS)
                self._map = await asyncio.to_thread(draw, survey, self._map, time.time_ns() // 1_000_000)
                self._drawn_at = self._clock()
        return _with_points(self._map, points)


def draw(survey: Survey, before: InterestMap | None, now_ms: int) -> InterestMap:
    """The map of what was surveyed, turned as the one before was."""
    shares = np.zeros((len(survey.user_ids), len(survey.tags)))
    shares[survey.user, survey.tag] = survey.share
    places = tag_map.lay_out(tag_map.cosines(shares))
    if before is not None:
        places = _turned(places, survey.tags, before)
    return InterestMap(survey.users_in_memory, now_ms, _tags(survey, shares, places), _points(survey, shares, places))


def _turned(places: Places, tags: list[str], before: InterestMap) -> Places:
    was = {tag.tag: (tag.x, tag.y) for tag in before.tags}
    both = [i for i, tag in enumerate(tags) if tag in was]
    if not both:
        return places
    turn = tag_map.turn(places[both], np.array([was[tags[i]] for i in both]))
    return np.asarray(places @ turn)


def _tags(survey: Survey, shares: NDArray[np.float64], places: Places) -> tuple[MapTag, ...]:
    total = max(float(shares.sum()), 1e-9)
    columns = (shares.sum(axis=0) / total, (shares > 0).sum(axis=0), *_rounded(places))
    return tuple(map(MapTag, survey.tags, *(column.tolist() for column in columns)))


def _points(survey: Survey, shares: NDArray[np.float64], places: Places) -> tuple[MapPoint, ...]:
    if not survey.tags:
        return ()
    at = _rounded(tag_map.means(shares, places))
    top = [survey.tags[i] for i in shares.argmax(axis=1).tolist()]
    return tuple(map(MapPoint, survey.user_ids, *(column.tolist() for column in at), top))


def _rounded(places: Places) -> NDArray[np.float64]:
    """x and y: no screen shows more."""
    return np.asarray(np.round(np.clip(places, -1, 1), 4).T, np.float64)


def _with_points(whole: InterestMap, points: int) -> InterestMap:
    """As many users as are wanted, spread evenly over those that are there."""
    step = max(-(-len(whole.points) // points), 1)
    return InterestMap(whole.users, whole.made_at, whole.tags, whole.points[::step])
