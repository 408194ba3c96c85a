"""What a worker knows of items: facts, models, and the population's share of each tag."""

import msgspec
import numpy as np
import pytest

from streamer.errors import StateError
from streamer.events import Item
from streamer.model.factors import initial_vector
from streamer.model.popularity import HALF_LIVES_MS, LONGEST
from streamer.model.tag_mix import POPULATION
from streamer.pipeline.catalogue import (
    PRIOR_EVENTS,
    TAGS_PER_ITEM,
    Catalogue,
    distinct,
    prior_of,
)
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.item_model import MODEL_LAYOUT, ItemModel, decode_model
from tests.pipeline_world import T0

DIM = 8


def item(item_id: str, *tags: str) -> Item:
    return Item(item_id, item_id.title(), tags)


def model(item_id: str, popularity: float = 1.0, ts: int = T0, dim: int = DIM, tags: tuple[str, ...] = ()) -> ItemModel:
    return ItemModel(MODEL_LAYOUT, item_id, 3, popularity, ts, np.arange(dim, dtype="<f4").tobytes(), tags)


def catalogue(*items: Item) -> Catalogue:
    made = Catalogue(DIM)
    for one in items:
        made.describe(one)
    return made


def tags_of(known: Catalogue, item_id: str) -> list[str]:
    slot = known.slot_of[item_id]
    return [known.tag_names[tag] for tag in known.tags[slot, : known.n_tags[slot]].tolist()]


def popularity_of(known: Catalogue) -> tuple[float, int]:
    """Of the first item: as its model has it, and as of when."""
    models = known.models.columns(1)
    return models.popularity[0, LONGEST].item(), models.newest[0].item()


def priors(known: Catalogue) -> dict[str, float]:
    known.tag_prior, known.prior_floor = prior_of(known.tag_use())
    return {name: float(known.tag_prior[known.tag_table.get(tag), LONGEST]) for tag, name in known.tag_names.items()}


def test_a_described_item_is_known_by_id_and_by_hash() -> None:
    known = catalogue(item("mug", "kitchen", "gift"))
    assert known.name(hash_id("mug")) == "mug"
    assert tags_of(known, "mug") == ["kitchen", "gift"]
    assert (len(known), known.listed) == (1, 1)
    assert known.facts[0] == item("mug", "kitchen", "gift")


def test_nobody_knows_what_was_never_seen() -> None:
    assert Catalogue(DIM).name(hash_id("mug")) is None
    assert Catalogue(DIM).forget("mug") is None
    Catalogue(DIM).drop_model("mug")


def test_an_item_that_only_an_event_named_can_be_named_but_is_not_listed() -> None:
    known = Catalogue(DIM)
    assert known.see("mug") == known.see("mug") == 0
    assert (known.name(hash_id("mug")), known.listed, known.facts[0]) == ("mug", 0, None)
    assert not known.vectors[0].any()


def test_the_latest_description_counts() -> None:
    known = catalogue(item("mug", "kitchen", "gift"), item("mug", "office"))
    assert tags_of(known, "mug") == ["office"]
    assert (len(known), known.listed) == (1, 1)


def test_a_forgotten_item_keeps_its_name_and_nothing_else() -> None:
    known = catalogue(item("mug", "kitchen"))
    known.apply_model(model("mug"))
    assert known.forget("mug") == 0
    assert (known.name(hash_id("mug")), tags_of(known, "mug"), known.listed) == ("mug", [], 0)
    assert (known.facts[0], popularity_of(known)[0], known.modelled[0]) == (None, 0, False)
    assert not known.vectors[0].any()
    assert known.forget("mug") == 0
    assert known.listed == 0


def test_tags_are_taken_once_without_empty_ones_and_at_most_so_many() -> None:
    assert distinct(["a", "", "b", "a"]) == ["a", "b"]
    many = [f"tag {i}" for i in range(TAGS_PER_ITEM + 5)]
    assert distinct(many) == many[:TAGS_PER_ITEM]
    assert tags_of(catalogue(item("mug", *many)), "mug") == many[:TAGS_PER_ITEM]


def test_thousands_of_items_stay_what_they_are_while_the_columns_grow() -> None:
    known = catalogue(*(item(f"item {i}", f"tag {i % 7}") for i in range(5000)))
    for i in (0, 1023, 1024, 2047, 2048, 4999):
        assert known.name(hash_id(f"item {i}")) == f"item {i}"
        assert tags_of(known, f"item {i}") == [f"tag {i % 7}"]


# Bounds


def full(*items: Item) -> Catalogue:
    """Room for three items and three names of tags."""
    made = Catalogue(DIM, limit=3)
    for one in items:
        made.describe(one)
    for n in range(3 - len(items)):
        made.see(f"seen {n}")
    return made


def test_made_up_items_share_one_slot_once_there_is_no_room() -> None:
    known = full(item("mug", "kitchen"))
    slots = {known.see(f"made up {n}") for n in range(1000)}
    assert slots == {known.crowd}
    assert len(known) == 4
    assert known.name(hash_id("made up 7")) is None
    assert (known.n_tags[known.crowd], known.vectors[known.crowd].any()) == (0, False)


def test_deleted_items_leave_their_room_to_others() -> None:
    known = Catalogue(DIM, limit=3)
    for n in range(5):
        known.describe(item(f"sold-{n}", "old"))
        known.forget(f"sold-{n}")
    slots = [known.see(f"new-{n}") for n in range(3)]
    assert known.crowd == -1
    assert len(set(slots)) == 3
    known.describe(item("sold-0", "old"))
    assert known.see("one-more") == known.crowd


def test_while_there_is_room_nobody_is_in_the_crowd() -> None:
    known = catalogue(item("mug"))
    assert known.see("cup") == 1
    assert known.crowd == -1


def test_what_is_listed_gets_a_slot_whether_there_is_room_or_not() -> None:
    known = full()
    assert known.see("mug") == known.crowd
    slot = known.describe(item("mug", "kitchen", "gift", "blue", "large"))
    assert slot != known.crowd
    assert (known.see("mug"), known.listed) == (slot, 1)
    assert tags_of(known, "mug") == ["kitchen", "gift", "blue", "large"]


def test_a_model_of_an_item_that_has_no_room_is_passed_over() -> None:
    known = full(item("mug", "kitchen"))
    assert known.apply_model(model("mug")) == 0
    assert known.apply_model(model("made up", tags=("blue",))) is None
    known.see("made up")
    assert known.apply_model(model("made up")) is None
    assert (known.newest_ts, known.modelled.sum(), len(known)) == (T0, 1, 4)


def test_names_of_tags_of_events_pass_once_there_is_no_room() -> None:
    known = Catalogue(DIM, limit=3)
    assert [known.see_tag(f"tag {n}") for n in range(5)] == [hash_id(f"tag {n}") for n in range(5)]
    assert sorted(known.tag_names.values()) == ["tag 0", "tag 1", "tag 2"]
    assert sorted(known.passing_tags.values()) == ["tag 3", "tag 4"]


# Models


def test_an_item_starts_from_its_tags() -> None:
    known = catalogue(item("mug", "kitchen"), item("pan", "kitchen"), item("tent", "camping"))
    mug, pan, tent = known.vectors[:3]
    tags = np.array([hash_id("kitchen")], np.uint64)
    assert mug.tolist() == initial_vector(tags, np.uint64(hash_id("mug")), DIM).tolist()
    assert float(mug @ pan) > 0.9 > abs(float(mug @ tent))


def test_what_was_learned_takes_the_place_of_the_start_and_outlives_a_description() -> None:
    known = catalogue(item("mug", "kitchen"))
    known.apply_model(model("mug", popularity=4.0))
    known.describe(item("mug", "office"))
    assert known.vectors[0].tolist() == list(range(DIM))
    assert (*popularity_of(known), known.newest_ts) == (4.0, T0, T0)


def test_an_item_whose_model_is_dropped_starts_anew_from_its_tags() -> None:
    """As when it was deleted and listed again: the owner's deletion of the model arrives after the new description."""
    known, fresh = catalogue(item("mug", "kitchen")), catalogue(item("mug", "kitchen"))
    known.apply_model(model("mug"))
    known.drop_model("mug")
    assert (known.modelled[0], popularity_of(known)[0]) == (False, 0)
    assert known.vectors[0].tolist() == fresh.vectors[0].tolist()


def test_a_vector_of_another_size_is_not_taken_but_the_popularity_is() -> None:
    known = catalogue(item("mug", "kitchen"))
    start = known.vectors[0].tolist()
    known.apply_model(model("mug", dim=4, popularity=9.0))
    assert (known.vectors[0].tolist(), known.modelled[0], popularity_of(known)[0]) == (start, False, 9.0)


def test_tags_of_events_count_only_while_the_catalogue_has_none() -> None:
    known = Catalogue(DIM)
    known.apply_model(model("mug", tags=("blue",)))
    assert tags_of(known, "mug") == ["blue"]
    known.describe(item("mug", "kitchen"))
    known.apply_model(model("mug", tags=("blue",)))
    assert tags_of(known, "mug") == ["kitchen"]


def test_every_change_that_a_reader_would_see_moves_the_version() -> None:
    known = Catalogue(DIM)
    versions = [known.version]
    for change in (
        lambda: known.describe(item("mug", "kitchen")),
        lambda: known.apply_model(model("mug")),
        lambda: known.drop_model("mug"),
        lambda: known.forget("mug"),
    ):
        change()
        versions.append(known.version)
    assert versions == sorted(set(versions))


def test_a_model_of_a_newer_worker_is_refused() -> None:
    newer = msgspec.msgpack.encode(msgspec.structs.replace(model("mug"), layout=MODEL_LAYOUT + 1))
    with pytest.raises(StateError, match=r"item model of layout 3, this worker knows 2: upgrade all workers"):
        decode_model(newer)
    assert decode_model(msgspec.msgpack.encode(model("mug"))) == model("mug")


# The population's shares


def test_before_any_event_the_catalogue_itself_is_the_population() -> None:
    known = catalogue(item("mug", "kitchen", "gift"), item("pan", "kitchen"), item("tent", "camping"))
    assert priors(known) == pytest.approx({"kitchen": 1.5 / 3, "gift": 0.5 / 3, "camping": 1 / 3})


def test_events_outweigh_the_catalogue_the_more_there_are() -> None:
    known = catalogue(item("mug", "kitchen"), item("tent", "camping"))
    known.apply_model(model("mug", popularity=300.0))
    assert priors(known) == {"kitchen": (300 + 50) / 400, "camping": 50 / 400}


def test_popularity_fades_up_to_the_newest_model() -> None:
    known = catalogue(item("mug", "kitchen"), item("tent", "camping"))
    known.apply_model(model("mug", popularity=100.0, ts=T0 - HALF_LIVES_MS[LONGEST]))
    known.apply_model(model("tent", popularity=100.0, ts=T0))
    assert priors(known) == pytest.approx({"kitchen": 100 / 250, "camping": 150 / 250})


def test_every_event_has_one_vote_for_all_tags_of_its_item() -> None:
    known = catalogue(item("mug", "kitchen", "gift", "blue"), item("tent", "camping"))
    known.apply_model(model("mug", popularity=400.0))
    known.apply_model(model("tent", popularity=400.0))
    assert priors(known)["camping"] == pytest.approx(3 * priors(known)["kitchen"])


def test_in_the_catalogue_every_tag_has_a_vote_of_its_own_beside_those_of_its_items() -> None:
    known = catalogue(item("mug", "kitchen", "gift"), item("pan", "kitchen"))
    priors(known)
    assert known.tag_prior[:, -1].tolist() == pytest.approx([(1.5 + 1) / (2 + 2), (0.5 + 1) / (2 + 2)])


def test_an_empty_catalogue_has_no_shares() -> None:
    assert priors(Catalogue(DIM)) == {}


def test_shares_of_the_population_sum_to_one() -> None:
    known = catalogue(*(item(str(i), f"a{i % 3}", f"b{i % 5}") for i in range(30)))
    for i in range(0, 30, 4):
        known.apply_model(model(str(i), popularity=float(i), ts=T0 - i * 10**8))
    assert sum(priors(known).values()) == pytest.approx(1)
    assert known.tag_prior.sum(axis=0).tolist() == pytest.approx([1] * POPULATION)
    assert PRIOR_EVENTS == 100
