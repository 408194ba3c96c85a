"""What workers hold of the models that owners published."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine import ranking
from streamer.engine.ranking import Ranking
from streamer.engine.slices import Slices
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel
from streamer.pipeline.item_models import LINK_BYTES
from streamer.pipeline.space import ItemSpace
from tests.pipeline_world import T0


def model(item_id: str, *before: str, events: int = 1) -> ItemModel:
    hashes = np.array([hash_id(name) for name in before], np.uint64)
    weights = np.full((len(before), 2), events, np.float32)
    return ItemModel(
        layout=MODEL_LAYOUT,
        item_id=item_id,
        events=events,
        popularity=4.0,
        ts=T0,
        vector=b"",
        lately=(1.0, 2.0),
        landmark=T0 - 5,
        before=hashes.tobytes(),
        weights=weights.tobytes(),
    )


def shop(*names: str) -> Catalogue:
    catalogue = Catalogue(8)
    catalogue.models.follow_transitions()
    for name in names:
        catalogue.see(name)
    return catalogue


def steps(catalogue: Catalogue) -> dict[tuple[str, str], list[float]]:
    """(source, neighbour) to the weights on the short memory, forward and backward, where there are any."""
    catalogue.models.link_all(catalogue.table)
    pool, out = catalogue.models.links, {}
    for h in range(len(catalogue)):
        place = np.arange(pool.at[h], pool.at[h] + pool.room[h])
        for e in place[pool.keys[place] != 0].tolist():
            pair: NDArray[np.float32] = pool.weights[e, [0, 2]]
            if pair.any():
                out[catalogue.ids[h], catalogue.ids[int(pool.keys[e]) - 1]] = pair.tolist()
    return out


def test_a_model_fills_the_columns_of_its_slot() -> None:
    catalogue = shop("mug", "pan")
    catalogue.apply_model(model("pan", "mug", events=3))
    columns = catalogue.models.columns(2)
    assert columns.popularity.tolist() == [[0.0] * 3, [1.0, 2.0, 4.0]]
    assert (columns.events.tolist(), columns.newest.tolist(), columns.landmarks.tolist()) == (
        [0, 3],
        [0, T0],
        [0, T0 - 5],
    )
    assert steps(catalogue) == {("mug", "pan"): [3.0, 0.0], ("pan", "mug"): [0.0, 3.0]}


def test_the_latest_model_replaces_the_one_before() -> None:
    catalogue = shop("mug", "pan", "tent")
    catalogue.apply_model(model("pan", "mug", events=3))
    catalogue.apply_model(model("pan", "tent", events=4))
    assert steps(catalogue) == {("tent", "pan"): [4.0, 0.0], ("pan", "tent"): [0.0, 4.0]}


def test_a_dropped_model_leaves_what_others_know_of_the_item() -> None:
    catalogue = shop("mug", "pan")
    catalogue.apply_model(model("pan", "mug", events=3))
    catalogue.apply_model(model("mug", "pan", events=2))
    catalogue.drop_model("pan")
    assert steps(catalogue) == {("pan", "mug"): [2.0, 0.0], ("mug", "pan"): [0.0, 2.0]}
    assert catalogue.models.columns(2).events.tolist() == [2, 0]


def test_models_that_come_before_the_items_they_name_are_linked_when_those_are_known() -> None:
    catalogue = shop()
    catalogue.apply_model(model("pan", "mug", "never heard of"))
    assert steps(catalogue) == {}
    catalogue.apply_model(model("mug"))
    assert steps(catalogue) == {("mug", "pan"): [1.0, 0.0], ("pan", "mug"): [0.0, 1.0]}


def test_a_model_that_waited_does_not_replace_a_later_one() -> None:
    catalogue = shop("tent")
    catalogue.apply_model(model("pan", "mug", events=1))
    catalogue.apply_model(model("pan", "tent", events=2))
    catalogue.see("mug")
    assert steps(catalogue) == {("tent", "pan"): [2.0, 0.0], ("pan", "tent"): [0.0, 2.0]}


def test_thousands_of_models_are_linked_while_everything_grows() -> None:
    names = [f"item {i}" for i in range(3000)]
    catalogue = shop(*names)
    for i in range(1, 3000):
        catalogue.apply_model(model(names[i], names[i - 1], events=i))
    found = steps(catalogue)
    assert len(found) == 2 * 2999
    assert all(found[names[i - 1], names[i]] == [float(i), 0.0] for i in range(1, 3000))


def test_a_bounded_pool_is_never_copied_to_grow() -> None:
    names = [f"item {i}" for i in range(3000)]
    catalogue = shop(*names)
    catalogue.models.follow_transitions(LINK_BYTES << 20)
    keys, weights = catalogue.models.links.keys, catalogue.models.links.weights
    for i in range(1, 3000):
        catalogue.apply_model(model(names[i], names[i - 1], events=i))
    assert len(steps(catalogue)) == 2 * 2999
    assert catalogue.models.links.keys is keys
    assert catalogue.models.links.weights is weights


def test_transitions_are_kept_only_for_who_ranks() -> None:
    catalogue = Catalogue(8)
    catalogue.see("mug")
    catalogue.apply_model(model("pan", "mug", events=3))
    assert catalogue.models.columns(2).events.tolist() == [0, 3]
    assert steps(catalogue) == {}


async def test_the_first_board_has_all_models_and_later_ones_do_not_wait_for_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranking, "LINK_S", 0.05)
    names = [f"item {i}" for i in range(3000)]
    catalogue = shop(*names)
    own = Ranking(ItemSpace(catalogue, 8), partitions=1, most_bytes=LINK_BYTES << 20, slices=Slices())
    models, table = catalogue.models, catalogue.table
    for events in (1, 2):
        for i in range(1, 3000):
            catalogue.apply_model(model(names[i], names[i - 1], events=events))
        await own.renew()
        if events == 1:
            assert models.unlinked(table) == 0
            assert own.ready
    assert 0 < models.unlinked(table) < 2999
