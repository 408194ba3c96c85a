"""The owner of items: popularity, models, when they are published, and rows that bring them back."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import StateError
from streamer.events import Item
from streamer.model import transitions
from streamer.model.popularity import HALF_LIVES_MS
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel, decode_model
from streamer.pipeline.layout import PREDECESSORS
from streamer.pipeline.own_items import (
    GROWTH,
    LAYOUT,
    MODEL_EVERY_MS,
    MODEL_WITHIN_MS,
    MODELS_PER_S,
    ItemRow,
    OwnItems,
)
from streamer.pipeline.signals import Learned, join
from streamer.pipeline.space import ItemSpace
from streamer.pipeline.storing import ROWS_EVERY_MS, ROWS_PER_S
from streamer.pipeline.turns import BURST_MS, PAUSE_MS, at_once
from tests.pipeline_world import DAY_MS, T0

DIM = 8
NOW = T0 + DAY_MS
Taken = list[tuple[bytes, bytes | None]]


class Owner:
    """One partition's items, beside a catalogue that lists some of them."""

    def __init__(self, *listed: Item) -> None:
        self.catalogue = Catalogue(DIM)
        for item in listed:
            self.catalogue.describe(item)
        self.space = ItemSpace(self.catalogue, 40)
        self.space.refresh()
        self.own, self.offset = OwnItems(DIM, seed=1), 0

    def learn(
        self, *signals: tuple[str, int], before: tuple[str, ...] = (), weight: float = 1.0, **tags: list[str]
    ) -> None:
        """(item, ts) each, all with the same items before them and weight; tags that events brought, by item."""
        self.own.learn(join([self.record(*signals, before=before, weight=weight, **tags)]), self.space)

    def record(
        self, *signals: tuple[str, int], before: tuple[str, ...] = (), weight: float = 1.0, **tags: list[str]
    ) -> Learned:
        """The next record, decoded and not learned yet."""
        items = list(dict.fromkeys(item_id for item_id, _ in signals))
        predecessors = np.zeros((len(signals), PREDECESSORS), np.uint64)
        predecessors[:, : len(before)] = [hash_id(item_id) for item_id in before]
        for item_id in before:
            self.catalogue.see(item_id)
        self.offset += 1
        return Learned(
            items=items,
            item=np.array([items.index(item_id) for item_id, _ in signals]),
            ts=np.array([ts for _, ts in signals], np.int64),
            weight=np.full(len(signals), weight, np.float32),
            predecessors=predecessors,
            tags={items.index(item_id): own for item_id, own in tags.items()},
            offset=np.full(len(items), self.offset - 1),
            before=np.zeros(len(items), np.int64),
        )

    def take(self, now_ms: int = NOW, *, everything: bool = True) -> tuple[Taken, Taken]:
        """What a checkpoint stores and publishes."""
        return at_once(self.own.take(now_ms, self.offset, 1, everything=everything))

    def models(self, now_ms: int = NOW) -> dict[str, ItemModel | None]:
        """What a checkpoint publishes."""
        return {key.decode(): None if value is None else decode_model(value) for key, value in self.take(now_ms)[1]}


def stored(owner: Owner) -> dict[str, ItemModel]:
    """The models in the rows that the last checkpoint stores."""
    models = [msgspec.msgpack.decode(row, type=ItemRow).model for _, row in owner.take()[0] if row]
    return {model.item_id: model for model in models}


def stored_to(owner: Owner) -> tuple[int, int]:
    """The position in the signals that a checkpoint stores: offset and number."""
    return owner.own.storing.stored_to(owner.offset, owner.own.signals)


def restarted(rows: Taken) -> Owner:
    """The owner after a restart: rows as the store gives them back, in the order of their keys."""
    owner = Owner()
    for _, row in sorted(rows):
        if row is not None:
            owner.own.load(row)
    return owner


def model_of(owner: Owner, item_id: str, now_ms: int = NOW) -> ItemModel:
    model = owner.models(now_ms)[item_id]
    assert model is not None
    return model


# Popularity


def test_an_items_popularity_is_its_decayed_number_of_events_at_each_half_life() -> None:
    owner, [day, week, month] = Owner(), HALF_LIVES_MS
    owner.learn(("mug", T0 - month), ("mug", T0), ("mug", T0))
    model = model_of(owner, "mug")
    assert (model.popularity, model.events, model.ts) == (2.5, 3, T0)
    assert model.lately == pytest.approx((2 + 0.5 ** (month / day), 2 + 0.5 ** (month / week)))


@given(st.lists(st.integers(T0 - 200 * DAY_MS, T0), min_size=1, max_size=20), st.integers(1, 5))
def test_popularity_does_not_depend_on_the_order_or_the_batches(times: list[int], size: int) -> None:
    owner = Owner()
    for start in range(0, len(times), size):
        owner.learn(*(("mug", ts) for ts in times[start : start + size]))
    model = model_of(owner, "mug")
    newest = max(times)
    assert model.ts == newest
    assert model.events == len(times)
    for found, half_life in zip((*model.lately, model.popularity), HALF_LIVES_MS, strict=True):
        assert found == pytest.approx(sum(0.5 ** ((newest - ts) / half_life) for ts in times))


def test_items_do_not_share_their_popularity() -> None:
    owner = Owner()
    owner.learn(("mug", T0), ("pan", T0), ("mug", T0))
    assert {name: model.popularity for name, model in owner.models().items() if model} == {"mug": 2.0, "pan": 1.0}


def test_hundreds_of_items_stay_what_they_are_while_the_columns_grow() -> None:
    owner = Owner()
    owner.learn(*((f"item {i}", T0 + i) for i in range(1000)))
    assert len(owner.own) == 1000
    assert {name: model.ts - T0 for name, model in stored(owner).items()} == {f"item {i}": i for i in range(1000)}


# Transitions


def before_of(model: ItemModel) -> dict[int, list[float]]:
    """Weights at both memory lengths of the items that came before, by hash."""
    weights = np.frombuffer(model.weights, np.float32).reshape(-1, 2)
    return dict(zip(np.frombuffer(model.before, np.uint64).tolist(), weights.tolist(), strict=True))


def test_a_model_says_what_came_before_its_item() -> None:
    owner = Owner()
    owner.learn(("mug", T0), before=("pan", "tent"))
    owner.learn(("mug", T0), before=("pan", "mug"))
    model = model_of(owner, "mug")
    short, long = 2 ** (-1 / 3), 2 ** (-1 / 12)
    assert model.landmark == T0
    assert before_of(model) == {
        hash_id("pan"): pytest.approx([2.0, 2.0]),
        hash_id("tent"): pytest.approx([short, long]),
    }


def test_more_signals_than_the_pool_has_room_for_are_all_learned() -> None:
    owner, before = Owner(), tuple(f"b{i}" for i in range(PREDECESSORS))
    owner.learn(*((f"item {i}", T0) for i in range(2000)), before=before)
    models = stored(owner)
    assert len(models) == 2000
    assert {len(before_of(model)) for model in models.values()} == {PREDECESSORS}


def test_an_item_keeps_its_strongest_predecessors() -> None:
    owner = Owner()
    for i in range(3 * transitions.MOST):
        owner.learn(("mug", T0), before=("pan", f"seen once {i}"))
    kept = before_of(model_of(owner, "mug"))
    assert len(kept) <= transitions.MOST
    assert kept[hash_id("pan")] == [3 * transitions.MOST] * 2


# Vectors


def test_an_item_starts_from_the_tags_of_the_catalogue() -> None:
    owner = Owner(Item("mug", "Mug", ("kitchen",)))
    owner.learn(("mug", T0))
    vector = np.frombuffer(model_of(owner, "mug").vector, np.float32)
    assert vector.tolist() == owner.catalogue.vectors[owner.catalogue.slot_of["mug"]].tolist()


def test_events_pull_an_item_towards_what_came_before_it() -> None:
    listed = [Item(name, name, (name,)) for name in ("mug", "pan", "tent", "lamp")]
    owner = Owner(*listed)
    owner.learn(*((name, T0) for name in ("mug", "pan", "tent", "lamp")))
    mug, pan = owner.own.row_of["mug"], owner.catalogue.vectors[owner.catalogue.slot_of["pan"]]
    before = float(owner.own.vectors[mug] @ pan)
    for _ in range(50):
        owner.learn(("mug", T0), before=("pan",))
    assert float(owner.own.vectors[mug] @ pan) > before + 0.1


def test_where_all_events_are_purchases_they_teach_as_much_as_clicks_do_where_all_are_clicks() -> None:
    clicks, purchases = Owner(), Owner()
    for owner, weight in ((clicks, 1.0), (purchases, 3.0)):
        owner.learn(*((f"item {i % 5}", T0) for i in range(40)), before=("item 1", "item 2"), weight=weight)
    assert clicks.models() == purchases.models()


def test_learning_again_from_the_same_signals_gives_the_same_models_wherever_batches_are_cut() -> None:
    """Once all items are known: draws depend on which there are."""
    names = [f"item {i}" for i in range(7)]
    signals = [(names[i % 7], T0 + i) for i in range(40)]
    one, two = Owner(), Owner()
    for owner in (one, two):
        owner.learn(*((name, T0) for name in names))
    one.learn(*signals, before=("item 1", "item 2"))
    for signal in signals:
        two.learn(signal, before=("item 1", "item 2"))
    assert one.own.signals == two.own.signals == 47
    assert one.models() == two.models()


def test_records_learned_together_are_learned_as_one_by_one() -> None:
    """Once all items are known. Those that a row has learned before are left out, and each row lacks its first."""
    names = [f"item {i}" for i in range(5)]
    one, two = Owner(), Owner()
    for owner in (one, two):
        owner.learn(*((name, T0) for name in names))
        owner.take()
        owner.own.learned_to[owner.own.row_of["item 3"]] = 5
    for owner in (one, two):
        records = [
            owner.record(*((names[i % n], T0 + i) for i in range(2 * n)), before=("item 1", "item 2"), weight=n / 2)
            for n in (2, 5, 3, 4, 5, 1)
        ]
        for some in [records] if owner is two else [[record] for record in records]:
            owner.own.learn(join(some), owner.space)
    assert one.own.signals == two.own.signals == 45
    assert one.own.storing.lacking.tolist() == two.own.storing.lacking.tolist()
    assert one.own.storing.lacking_signal.tolist() == two.own.storing.lacking_signal.tolist()
    assert [one.own.storing.lacking[one.own.row_of[name]] for name in names] == [2, 2, 3, 6, 3]
    assert one.models() == two.models()


# Tags that events brought


def test_tags_of_events_are_kept_for_items_that_the_catalogue_does_not_list() -> None:
    owner = Owner(Item("mug", "Mug", ("kitchen",)))
    owner.learn(("mug", T0), ("tent", T0), mug=["blue"], tent=["camping", "", "camping"])
    owner.learn(("tent", T0), tent=["new", "camping"])
    models = owner.models()
    assert {name: model.tags for name, model in models.items() if model} == {"mug": (), "tent": ("camping", "new")}


def test_once_the_catalogue_lists_an_item_the_tags_of_events_are_gone() -> None:
    owner = Owner()
    owner.learn(("tent", T0), tent=["camping"])
    owner.models()
    owner.own.describe(Item("tent", "Tent", ("outdoor",)))
    owner.own.describe(Item("unheard of", "", ()))
    assert owner.own.storing.waiting.tolist() == [0]
    rows, models = owner.take(NOW + MODEL_EVERY_MS)
    assert [msgspec.msgpack.decode(row, type=ItemRow).model.tags for _, row in rows if row] == [()]
    assert models == []


# When


def test_nothing_is_due_before_anything_was_learned() -> None:
    owner = Owner()
    assert (owner.own.models_due(NOW), owner.own.storing.due(NOW), owner.take()) == (False, False, ([], []))


def test_a_new_model_is_due_at_once_and_then_after_the_pause() -> None:
    owner = Owner()
    owner.learn(("mug", T0))
    assert owner.own.models_due(NOW)
    assert owner.models(NOW).keys() == {"mug"}
    assert not owner.own.models_due(NOW + MODEL_EVERY_MS)  # nothing new
    owner.learn(("mug", T0))
    assert not owner.own.models_due(NOW + MODEL_EVERY_MS - 1)
    assert owner.models(NOW + MODEL_EVERY_MS - 1) == {}
    assert owner.own.models_due(NOW + MODEL_EVERY_MS)
    assert model_of(owner, "mug", NOW + MODEL_EVERY_MS).events == 2


def test_a_model_that_hardly_changed_waits_longer() -> None:
    owner = Owner()
    owner.learn(*[("mug", T0)] * 2 * GROWTH)
    owner.models(NOW)
    owner.learn(("mug", T0))
    assert not owner.own.models_due(NOW + MODEL_EVERY_MS)
    assert owner.models(NOW + MODEL_WITHIN_MS - 1) == {}
    assert owner.own.models_due(NOW + MODEL_WITHIN_MS)
    assert model_of(owner, "mug", NOW + MODEL_WITHIN_MS).events == 2 * GROWTH + 1
    owner.learn(*[("mug", T0)] * 3)
    assert owner.models(NOW + MODEL_WITHIN_MS + MODEL_EVERY_MS).keys() == {"mug"}


def test_a_model_that_has_to_wait_is_stored_and_published_later() -> None:
    owner = Owner()
    owner.learn(("mug", T0))
    owner.take(NOW)
    owner.learn(("mug", T0))
    rows, models = owner.take(NOW + 1)
    assert ([key for key, _ in rows], models) == ([b"imug"], [])
    rows, models = owner.take(NOW + MODEL_EVERY_MS)
    assert (rows, [key for key, _ in models]) == ([], [b"mug"])


# Deletions


def test_a_forgotten_item_is_deleted_from_the_store_and_from_the_models() -> None:
    owner = Owner()
    owner.learn(("mug", T0), ("pan", T0))
    owner.take(NOW)
    owner.own.forget("mug")
    assert owner.own.models_due(NOW)
    assert owner.take(NOW) == ([(b"imug", None)], [(b"mug", None)])
    assert (len(owner.own), owner.own.storing.due(NOW), owner.own.models_due(NOW)) == (1, False, False)


def test_an_item_that_was_never_ours_is_deleted_all_the_same() -> None:
    """A model of an earlier owner of the topic may still be there."""
    owner = Owner()
    owner.own.forget("mug")
    assert owner.take() == ([(b"imug", None)], [(b"mug", None)])


def test_an_item_forgotten_before_its_first_checkpoint_is_not_written() -> None:
    owner = Owner()
    owner.learn(("mug", T0))
    owner.own.forget("mug")
    assert owner.take(NOW) == ([(b"imug", None)], [(b"mug", None)])


def test_an_item_that_comes_back_begins_anew() -> None:
    owner = Owner()
    owner.learn(("mug", T0), ("mug", T0))
    owner.take(NOW)
    owner.own.forget("mug")
    owner.learn(("mug", T0 + 1))
    rows, models = owner.take(NOW)
    assert [key for key, row in rows if row is not None] == [b"imug"]
    assert len(rows) == len(models) == 1
    assert models[0][1] is not None
    assert decode_model(models[0][1]).events == 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40))
def test_forgetting_some_items_leaves_the_others_as_they_are(steps: list[tuple[str, bool]]) -> None:
    owner, alone = Owner(), {name: Owner() for name in "abcdef"}
    for n, (name, forget) in enumerate(steps):
        for one in (owner, alone[name]):
            if forget:
                one.own.forget(name)
            else:
                one.learn((name, T0 + n), before=("x", "y"), **{name: [f"tag {n}"]})
    known = {name: model for name, one in alone.items() for model in one.models().values() if model}
    models = {name: model for name, model in owner.models().items() if model}
    assert models.keys() == known.keys()
    assert len(owner.own) == len(known)
    for name, model in models.items():
        assert msgspec.structs.replace(model, vector=b"") == msgspec.structs.replace(known[name], vector=b"")


# Rows


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(T0 - DAY_MS, T0)), min_size=1, max_size=30))
def test_items_read_from_their_rows_are_the_same(signals: list[tuple[str, int]]) -> None:
    owner = Owner()
    owner.learn(*signals, before=("a", "b"), **{signals[0][0]: ["blue"]})
    rows, _ = owner.take(0)  # stored, but not published yet
    again = restarted(rows)
    assert again.models() == owner.models()
    assert len(again.own) == len(owner.own)
    assert len(again.own.storing.waiting) == 0


def test_of_many_new_models_so_many_go_out_a_second_and_none_waits_for_ever() -> None:
    owner, burst = Owner(), MODELS_PER_S * BURST_MS // 1000

    def published(now_ms: int) -> set[str]:
        return {key.decode() for key, _ in owner.take(now_ms, everything=False)[1]}

    owner.learn(*((f"item {n}", T0) for n in range(burst + MODELS_PER_S + 1)))
    seen = published(NOW)
    assert len(seen) == burst
    assert not owner.own.models_due(NOW + PAUSE_MS - 1)
    assert owner.own.models_due(NOW + PAUSE_MS)
    assert len(seen := seen | published(NOW + PAUSE_MS)) == burst + MODELS_PER_S
    assert len(seen | published(NOW + 2 * PAUSE_MS)) == len(owner.own)
    assert not owner.own.models_due(NOW + 3 * PAUSE_MS)


def test_the_last_checkpoint_publishes_all_that_is_due() -> None:
    owner, many = Owner(), 2 * MODELS_PER_S * BURST_MS // 1000
    owner.learn(*((f"item {n}", T0) for n in range(many)))
    first = owner.take(NOW, everything=False)[1]
    assert len(first) == many // 2
    assert len(owner.take(NOW, everything=True)[1]) == many - len(first)


def test_a_model_that_was_not_published_before_a_restart_is_published_after_it() -> None:
    owner = Owner()
    owner.learn(("mug", T0))
    unpublished, _ = owner.take(0)
    owner.learn(("mug", T0))
    published, _ = owner.take(NOW)
    assert restarted(unpublished).own.models_due(NOW)
    assert not restarted(published).own.models_due(NOW)


def test_a_row_of_an_older_worker_is_read() -> None:
    """Layout 1 had neither transitions nor popularity at short half-lives."""
    older = msgspec.msgpack.encode((1, (1, "mug", 7, 2.5, T0, b"", ("blue",)), True))
    owner = restarted([(b"imug", older)])
    model = model_of(owner, "mug")
    assert (model.events, model.popularity, model.lately, model.tags) == (7, 2.5, (0.0, 0.0), ("blue",))
    owner.learn(("mug", T0), before=("pan",))
    assert before_of(model_of(owner, "mug", NOW + MODEL_EVERY_MS)) == {hash_id("pan"): [1.0, 1.0]}


def test_a_row_of_a_newer_worker_is_refused() -> None:
    model = ItemModel(MODEL_LAYOUT, "mug", 1, 1.0, T0, b"")
    newer = msgspec.msgpack.encode(ItemRow(LAYOUT + 1, model, unpublished=False))
    with pytest.raises(StateError, match=r"item row of layout 4, this worker knows 3: upgrade the worker"):
        OwnItems(DIM, seed=1).load(newer)


def test_an_item_finds_its_place_in_the_catalogue_once_it_is_listed() -> None:
    owner = Owner(*(Item(name, name, (name,)) for name in ("pan", "tent")))
    owner.catalogue.limit = 2
    owner.learn(("mug", T0))
    assert owner.own.slots[0] == owner.catalogue.crowd
    listed = Item("mug", "Mug", ("kitchen",))
    slot = owner.catalogue.describe(listed)
    owner.own.describe(listed)
    owner.learn(("mug", T0))
    assert owner.own.slots[0] == slot


# Rows in turns


def names(rows: Taken) -> set[str]:
    return {key[1:].decode() for key, _ in rows}


def test_rows_wait_for_their_round_and_then_for_their_turn_those_first_that_wait_longest() -> None:
    owner, burst = Owner(), ROWS_PER_S * BURST_MS // 1000
    owner.own.storing.next_at = NOW + ROWS_EVERY_MS
    for n in range(burst + 1):
        owner.learn((f"item {n}", T0))
    assert owner.take(NOW + ROWS_EVERY_MS - 1, everything=False)[0] == []
    rows, _ = owner.take(NOW + ROWS_EVERY_MS, everything=False)
    assert names(rows) == {f"item {n}" for n in range(burst)}
    assert stored_to(owner) == (burst, burst)
    owner.learn(("item 0", T0))  # the next round's
    assert not owner.own.storing.due(NOW + ROWS_EVERY_MS + PAUSE_MS - 1)
    rows, _ = owner.take(NOW + ROWS_EVERY_MS + PAUSE_MS, everything=False)
    assert names(rows) == {f"item {burst}"}
    assert stored_to(owner) == (burst + 1, burst + 1)
    assert not owner.own.storing.due(NOW + 2 * ROWS_EVERY_MS - 1)
    assert names(owner.take(NOW + 2 * ROWS_EVERY_MS, everything=False)[0]) == {"item 0"}
    assert stored_to(owner) == (owner.offset, owner.offset)


def test_a_change_of_the_catalogue_is_stored_at_once_and_nothing_else_with_it() -> None:
    owner = Owner()
    owner.own.storing.next_at = NOW + ROWS_EVERY_MS
    owner.learn(("tent", T0), ("mug", T0), tent=["camping"])
    owner.own.describe(Item("tent", "Tent", ("outdoor",)))
    assert names(owner.take(everything=False)[0]) == {"tent"}
    assert stored_to(owner) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz"), st.booleans()), max_size=30), st.data())
def test_whenever_rows_were_stored_a_restart_learns_every_signal_once(
    steps: list[tuple[str, str, bool]], data: st.DataObject
) -> None:
    """The rows of any few items are stored at any time; then a crash, and all signals since the position once more."""
    owner, kept = Owner(), dict[bytes, bytes]()
    for n, (item, follows, stores) in enumerate(steps):
        owner.learn((item, T0 + n), before=(follows,))
        if stores:
            some = data.draw(st.sets(st.sampled_from(sorted(owner.own.row_of)), max_size=2))
            owner.own.storing.urgent[[owner.own.row_of[name] for name in some]] = True
            kept |= {key: row for key, row in owner.take(0, everything=False)[0] if row}
    again = restarted([*kept.items()])
    again.offset, again.own.signals = stored_to(owner)
    for n, (item, follows, _) in enumerate(steps):
        if n >= again.offset:
            again.learn((item, T0 + n), before=(follows,))
    before = {key[1:].decode(): msgspec.msgpack.decode(row, type=ItemRow).model for key, row in kept.items()}
    found, known = before | stored(again), before | stored(owner)
    assert found.keys() == known.keys() == {item for item, _, _ in steps}
    for name, model in known.items():
        assert msgspec.structs.replace(found[name], vector=b"") == msgspec.structs.replace(model, vector=b"")


def test_rows_learn_offsets_that_they_have_seen_only_after_a_reset_of_the_signals() -> None:
    owner = Owner()
    owner.learn(("mug", T0), ("mug", T0))
    [(_, row)], _ = owner.take()
    assert row is not None
    for reset_at, learned in ((0, {}), (1, {"mug": 3})):
        again = Owner()
        again.own.load(row, reset_at)
        again.learn(("mug", T0))
        assert {name: model.events for name, model in stored(again).items()} == learned
