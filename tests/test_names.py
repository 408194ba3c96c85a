"""Names that a partition's rows refer to are stored once, in the same checkpoint."""

import numpy as np

from streamer.events import Item
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.names import Named, item_key, tag_key

NO_TAGS = np.zeros(0, np.uint64)


def shop(*items: tuple[str, tuple[str, ...]]) -> Catalogue:
    catalogue = Catalogue(8)
    for item_id, tags in items:
        catalogue.describe(Item(item_id, item_id, tags))
    return catalogue


def refer(named: Named, catalogue: Catalogue, *item_ids: str, own_tags: tuple[str, ...] = ()) -> dict[bytes, bytes]:
    slots = np.array([catalogue.see(item_id) for item_id in item_ids], np.int64)
    tags = np.array([catalogue.learn_tag(tag) for tag in own_tags], np.uint64)
    named.refer(slots, tags, own_tags=bool(own_tags), catalogue=catalogue)
    return named.take()


def rows(items: tuple[str, ...] = (), tags: tuple[str, ...] = ()) -> dict[bytes, bytes]:
    return {item_key(hash_id(name)): name.encode() for name in items} | {
        tag_key(hash_id(name)): name.encode() for name in tags
    }


def test_keys_are_a_letter_and_the_hash() -> None:
    assert item_key(0x0102) == b"d\x02\x01\0\0\0\0\0\0"
    assert tag_key(2**64 - 1) == b"t" + b"\xff" * 8


def test_the_first_reference_stores_an_item_and_its_tags_and_later_ones_nothing() -> None:
    catalogue, named = shop(("mug", ("kitchen", "gift")), ("pan", ("kitchen",))), Named()
    assert refer(named, catalogue, "mug", "mug") == rows(("mug",), ("kitchen", "gift"))
    assert refer(named, catalogue, "mug") == {}
    assert refer(named, catalogue, "pan", "mug") == rows(("pan",))


def test_names_wait_until_a_checkpoint_takes_them() -> None:
    catalogue, named = shop(("mug", ()), ("pan", ())), Named()
    for slot in (0, 1):
        named.refer(np.array([slot]), NO_TAGS, own_tags=False, catalogue=catalogue)
    assert named.take() == rows(("mug", "pan"))
    assert named.take() == {}


def test_tags_that_events_bring_are_stored_too() -> None:
    catalogue, named = shop(("mug", ("kitchen",))), Named()
    assert refer(named, catalogue, "mug", own_tags=("blue", "kitchen")) == rows(("mug",), ("kitchen", "blue"))
    assert refer(named, catalogue, "mug", own_tags=("blue",)) == {}


def test_an_item_with_new_tags_names_them_at_its_next_event() -> None:
    catalogue, named = shop(("mug", ("kitchen",))), Named()
    refer(named, catalogue, "mug")
    slot = catalogue.describe(Item("mug", "mug", ("kitchen", "office")))
    assert named.take() == {}
    named.retag(slot)
    assert refer(named, catalogue, "mug") == rows(("mug",), ("office",))


def test_an_item_that_no_event_named_yet_may_be_retagged() -> None:
    catalogue, named = shop(("mug", ())), Named()
    named.retag(0)
    assert refer(named, catalogue, "mug") == rows(("mug",))


def test_items_that_came_after_the_opening_are_named_as_well() -> None:
    catalogue, named = shop(("mug", ())), Named()
    refer(named, catalogue, "mug")
    many = tuple(f"item {i}" for i in range(3000))
    assert refer(named, catalogue, *many) == rows(many)


def test_names_that_pass_are_written_each_time_and_not_remembered() -> None:
    """Of items and tags beyond the catalogue's bound."""
    catalogue, named = Catalogue(8, limit=1), Named()
    catalogue.describe(Item("mug", "mug", ("kitchen",)))
    for _ in range(2):
        slots = np.array([catalogue.see("mug"), catalogue.see("junk")], np.int64)
        catalogue.pass_by(hash_id("junk"), "junk")
        tags = np.array([catalogue.see_tag("kitchen"), catalogue.see_tag("noise")], np.uint64)
        named.refer(slots, tags, own_tags=True, catalogue=catalogue)
        written = named.take()
        assert rows(("junk",), ("noise",)).items() <= written.items()
        assert written.keys() <= rows(("mug", "junk"), ("kitchen", "noise")).keys()
        assert (catalogue.passing_items, catalogue.passing_tags) == ({}, {})


def test_a_name_is_at_hand_while_its_row_is_on_its_way() -> None:
    catalogue, named = shop(("mug", ())), Named()
    named.refer(np.array([0]), NO_TAGS, own_tags=False, catalogue=catalogue)
    key = item_key(hash_id("mug"))
    assert named.unstored(key) == b"mug"
    named.take()
    assert named.unstored(key) == b"mug"
    named.take()
    assert named.unstored(key) is None
