"""Signals on their way to the owners of items: what is sent is what arrives."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import StateError
from streamer.pipeline.catalogue import TAGS_PER_ITEM, Catalogue
from streamer.pipeline.layout import PREDECESSORS
from streamer.pipeline.signals import LAYOUT, RECORD_BYTES, Batch, Learned, Outbox, Signals, decode, join_tags
from tests.pipeline_world import T0

OWNERS = {"mug": 0, "pan": 2, "tent": 0, "lamp": 11}
one_signal = st.tuples(
    st.sampled_from([*OWNERS]),
    st.integers(0, 2**43),
    st.sampled_from([1.0, 3.0]),
    st.lists(st.integers(0, 2**64 - 1), min_size=PREDECESSORS, max_size=PREDECESSORS),
)
Sent = tuple[str, int, float, list[int]]


def shop() -> Catalogue:
    catalogue = Catalogue(8, OWNERS.__getitem__)
    for item_id in ("lamp", "tent", "pan", "mug"):
        catalogue.see(item_id)
    return catalogue


def batch(catalogue: Catalogue, signals: list[Sent], own_tags: dict[str, tuple[str, ...]] | None = None) -> Batch:
    return Batch(
        np.array([catalogue.see(item_id) for item_id, *_ in signals], np.int64),
        np.array([ts for _, ts, *_ in signals], np.int64),
        np.array([weight for _, _, weight, _ in signals], np.float32),
        np.array([before for *_, before in signals], np.uint64).reshape(-1, PREDECESSORS),
        {catalogue.see(item_id): tags for item_id, tags in (own_tags or {}).items()},
    )


def signals_of(learned: Learned) -> list[Sent]:
    columns = (learned.item, learned.ts, learned.weight, learned.predecessors)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(learned.items[item], ts, weight, before) for item, ts, weight, before in rows]


@given(st.lists(st.lists(one_signal, max_size=6), max_size=4))
def test_every_owner_gets_the_signals_of_its_items_in_their_order(batches: list[list[Sent]]) -> None:
    catalogue, outbox = shop(), Outbox()
    for signals in batches:
        outbox.add(batch(catalogue, signals))
    everything = [signal for signals in batches for signal in signals]
    assert len(outbox) == len(everything)
    arrived = {owner: signals_of(decode(value, 0)) for owner, value in outbox.take(catalogue)}
    assert arrived == {
        owner: mine
        for owner in set(OWNERS.values())
        if (mine := [signal for signal in everything if OWNERS[signal[0]] == owner])
    }


def test_a_box_that_was_taken_is_empty() -> None:
    catalogue, outbox = shop(), Outbox()
    outbox.add(batch(catalogue, [("mug", T0, 1.0, [0] * PREDECESSORS)]))
    assert len(outbox.take(catalogue)) == 1
    assert (len(outbox), outbox.take(catalogue)) == (0, [])


def test_an_item_is_named_once_however_many_signals_it_has() -> None:
    catalogue, outbox = shop(), Outbox()
    outbox.add(batch(catalogue, [("mug", T0 + i, 1.0, [7] * PREDECESSORS) for i in range(100)]))
    [(_, value)] = outbox.take(catalogue)
    assert decode(value, 0).items == ["mug"]
    assert len(value) < 100 * 115


def test_signals_that_no_record_can_hold_travel_in_several_in_order() -> None:
    catalogue, outbox = shop(), Outbox()
    sent: list[Sent] = [("mug", T0 + i, 1.0, [i] * PREDECESSORS) for i in range(10_000)]
    outbox.add(batch(catalogue, sent))
    records = outbox.take(catalogue)
    assert len(records) > 1
    assert max(len(value) for _, value in records) <= RECORD_BYTES
    assert [signal for _, value in records for signal in signals_of(decode(value, 0))] == sent


def test_tags_of_events_travel_with_their_item() -> None:
    catalogue, outbox = shop(), Outbox()
    outbox.add(batch(catalogue, [(name, T0, 1.0, [0] * PREDECESSORS) for name in ("mug", "tent")], {"tent": ("blue",)}))
    [(_, value)] = outbox.take(catalogue)
    learned = decode(value, 0)
    assert {learned.items[n]: tags for n, tags in learned.tags.items()} == {"tent": ["blue"]}


def test_the_first_tags_of_all_events_on_an_item_travel_and_each_once() -> None:
    catalogue, outbox = shop(), Outbox()
    for n in range(5):
        tags = (f"first {n}", "", *(f"{n} {i}" for i in range(3)), "again")
        outbox.add(batch(catalogue, [("mug", T0, 1.0, [0] * PREDECESSORS)], {"mug": tags}))
    [(_, value)] = outbox.take(catalogue)
    [tags_of_mug] = decode(value, 0).tags.values()
    assert tags_of_mug[:6] == ["first 0", "0 0", "0 1", "0 2", "again", "first 1"]
    assert len(tags_of_mug) == len(set(tags_of_mug)) == TAGS_PER_ITEM


def test_an_item_whose_events_bring_empty_tags_only_has_none() -> None:
    own_tags: dict[int, tuple[str, ...]] = {}
    join_tags(own_tags, 3, ["", ""])
    assert own_tags == {}


def test_signals_of_a_newer_worker_are_refused() -> None:
    newer = msgspec.msgpack.encode(Signals(LAYOUT + 1, [], b"", b"", b"", b""))
    with pytest.raises(StateError, match=r"signals of layout 2, this worker knows 1: upgrade all workers"):
        decode(newer, 0)
