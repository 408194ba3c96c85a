"""How long rankings take over catalogues of any size: made-up models, of items as popular as 1/rank says."""

import time
from typing import Final

import msgspec
import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamer.model import board, experts, mix, transitions
from streamer.model.ragged import Pool, Rows, has_room, put
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.item_models import LINK_WEIGHTS, ItemModels
from streamer.pipeline.mixer import new_mix
from streamer.pipeline.rank import Filters, Ranker
from streamer.pipeline.space import ItemSpace

DIM, RECENT, TAGS = 32, 40, 6  # numbers a vector, items a user, tags an item
HEAD: Final = 20  # one item in so many is followed by as many others as are kept, the others by TAIL
TAIL: Final = 12
ITEMS_A_TAG: Final = 50
NOW: Final = 1_700_000_000_000
MINUTE_MS: Final = 60_000
HISTORY: Final = 500  # events of a user
SEED: Final = 1


class Speed(msgspec.Struct):
    """CPU of one core for `rank(user, 20)`, and for one board, over so many items."""

    items: int
    candidates: int  # the median user's
    ms_rank: float  # median
    ms_rank_p99: float
    ms_score: float  # median, of the evidence alone
    ms_of: dict[str, float]  # by experts, both memories of transitions together: by how much less it is without them
    seconds_board: float
    link_mb: int  # memory of transitions


def measure(items: int, users: int) -> Speed:
    """Time rankings of made-up users."""
    rng = np.random.default_rng(SEED)
    ranker, seconds_board = _ranker(rng, items)
    theta = mix.weights_for(new_mix(), HISTORY)
    people = [_user(rng, items) for _ in range(users)]
    ranker.rank(people[0], theta, 20, NOW)  # compiles
    score, rank, found = [], [], []
    for user in people:
        start = time.thread_time()
        found.append(len(ranker.score(user, NOW).slots))
        middle = time.thread_time()
        ranker.rank(user, theta, 20, NOW, Filters(without=user.items))
        score.append(middle - start)
        rank.append(time.thread_time() - middle)
    links = ranker.space.catalogue.models.links
    return Speed(
        items=items,
        candidates=int(np.median(found)),
        ms_rank=1e3 * float(np.median(rank)),
        ms_rank_p99=1e3 * float(np.quantile(rank, 0.99)),
        ms_score=1e3 * float(np.median(score)),
        ms_of=_parts(ranker, people),
        seconds_board=seconds_board,
        link_mb=sum(column.nbytes for column in (links.keys, links.weights)) >> 20,
    )


def _parts(ranker: Ranker, people: list[experts.User]) -> dict[str, float]:
    """Medians over people of what the evidence takes, less the same without some of the experts."""
    full, links = ranker.board, ranker.space.catalogue.models.links
    silent = full._replace(listed_at=np.zeros_like(full.listed_at))
    whole = _ms(full, links, people)
    without = {
        "transitions": _ms(full, Rows(LINK_WEIGHTS, transitions.LINKS).pool, people),
        "interests, titles": _ms(silent, links, people),
        "factors": _ms(full, links, [user._replace(vector=np.zeros_like(user.vector)) for user in people]),
    }
    return {name: whole - ms for name, ms in without.items()}


def _ms(tables: board.Board, links: Pool, people: list[experts.User]) -> float:
    work, took = experts.scratch(len(tables.fade), len(tables.tag_events)), []
    for user in people:
        start = time.thread_time()
        experts.evidence(tables, links, user, NOW, work)
        took.append(time.thread_time() - start)
    return 1e3 * float(np.median(took))


def _user(rng: np.random.Generator, items: int) -> experts.User:
    own = _popular(rng, items, RECENT)
    return experts.User(own, NOW - np.arange(RECENT) * MINUTE_MS, rng.normal(size=DIM).astype(np.float32))


def _popular(rng: np.random.Generator, items: int, n: int) -> NDArray[np.int64]:
    """Items drawn as 1/rank; item 0 is the most popular."""
    return np.minimum(np.exp(rng.uniform(0, np.log(items), n)).astype(np.int64) - 1, items - 1)


def _ranker(rng: np.random.Generator, items: int) -> tuple[Ranker, float]:
    """A ranker over made-up models, and the seconds that its board took."""
    ranker = Ranker(ItemSpace(Catalogue(DIM), RECENT))
    catalogue = ranker.space.catalogue
    catalogue.facts, catalogue.models = [None] * items, ItemModels(_links(items))
    models = _models(rng, items)
    known = max(items // ITEMS_A_TAG, TAGS)
    tags = _popular(rng, known, items * TAGS).reshape(items, TAGS).astype(np.int32)
    vectors = rng.normal(size=(items, DIM)).astype(np.float32)
    board.make(models.first(2), vectors[:2], tags[:2], known, NOW)  # compiles
    start = time.thread_time()
    ranker.board = board.make(models, vectors, tags, known, NOW)
    return ranker, time.thread_time() - start


def _models(rng: np.random.Generator, items: int) -> board.Models:
    events = np.maximum(10 * items // (1 + np.arange(items)), 1)
    popularity = np.repeat(events[:, None].astype(np.float64), 3, axis=1) * rng.uniform(0.1, 1, (items, 3))
    return board.Models(popularity, np.full(items, NOW), events, np.full(items, NOW))


def _links(items: int) -> Rows:
    rows = Rows(LINK_WEIGHTS, transitions.LINKS)
    rows.reach(items)
    done = 0
    while done < items:
        done = _fill(rows.pool, items, done)
        if done < items:
            rows.make_room()
    return rows


@njit(cache=True)
def _fill(pool, items, first):  # type: ignore[no-untyped-def]
    """Neighbours of items from number `first` on, near the head as popular ones are; returns where room ended."""
    np.random.seed(first + SEED)
    for i in range(first, items):
        if not has_room(pool, 1):
            return i
        for _ in range(transitions.LINKS - 1 if i < items // HEAD else TAIL):
            j = min(np.int64(np.exp(np.random.uniform(0.0, np.log(items)))) - 1, items - 1)
            e = put(pool, i, np.uint64(j + 1))
            for m in range(4):
                pool.weights[e, m] += np.random.random()
    return items
