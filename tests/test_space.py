"""The item space: users folded in against the normal equations, written out with numpy."""

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.events import Item
from streamer.model import factors
from streamer.model.tag_mix import POPULATION
from streamer.pipeline.catalogue import Catalogue
from streamer.pipeline.hashing import hash_id
from streamer.pipeline.space import ItemSpace

DIM = 8


def shop(*names: str) -> Catalogue:
    catalogue = Catalogue(DIM)
    for name in names:
        catalogue.describe(Item(name, name, (name,)))
    return catalogue


def spaced(catalogue: Catalogue, recent_items: int = 4) -> ItemSpace:
    space = ItemSpace(catalogue, recent_items)
    space.refresh()
    return space


def hashes(*rows: list[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Items end to end, and where each row of them begins."""
    flat = np.array([hash_id(name) for row in rows for name in row], np.uint64)
    return flat, np.cumsum([0, *map(len, rows)])


def ridge(catalogue: Catalogue, items: list[str]) -> NDArray[np.float64]:
    """p = (c0·QᵀQ + reg·I + Σ (w - c0)·q qᵀ)⁻¹ Σ w·q."""
    q = catalogue.vectors[: len(catalogue)].astype(np.float64)
    left = factors.C0 * q.T @ q + factors.REG * np.eye(DIM)
    right = np.zeros(DIM)
    for age, name in enumerate(items):
        vector, weight = q[catalogue.slot_of[name]], 1 + 4 * 2 ** (-age / 3)
        left += (weight - factors.C0) * np.outer(vector, vector)
        right += weight * vector
    return np.linalg.solve(left, right)


def test_users_are_folded_in_as_the_equation_says() -> None:
    catalogue = shop("mug", "pan", "tent", "lamp")
    lists = [["mug", "tent"], [], ["lamp", "mug", "pan", "tent"]]
    vectors = spaced(catalogue).fold_in(*hashes(*lists))
    assert vectors.shape == (3, DIM)
    assert not vectors[1].any()
    for vector, items in zip(vectors, lists, strict=True):
        assert vector.tolist() == pytest.approx(ridge(catalogue, items).tolist(), abs=1e-5)


def test_items_that_nobody_knows_are_passed_over() -> None:
    space = spaced(shop("mug", "pan"))
    with_a_gap = space.fold_in(*hashes(["mug", "unknown", "pan"]))
    without = space.fold_in(*hashes(["mug", "pan"]))
    assert with_a_gap.tolist() == without.tolist()


def test_slots_are_those_of_the_catalogue_in_any_shape() -> None:
    space = spaced(shop("mug", "pan"))
    assert space.slots(hashes(["pan", "mug"], ["unknown", "pan"])[0].reshape(2, 2)).tolist() == [[1, 0], [-1, 1]]
    assert space.slots(np.zeros((0, 3), np.uint64)).shape == (0, 3)


def test_a_refresh_takes_in_what_changed_and_only_then() -> None:
    catalogue = shop("mug")
    space = spaced(catalogue)
    assert not space.refresh()
    catalogue.describe(Item("pan", "Pan", ("pan",)))
    assert space.gram[0, 0] == pytest.approx(factors.gram(catalogue.vectors[:1])[0, 0])
    assert space.refresh()
    assert space.gram.tolist() == factors.gram(catalogue.vectors[:2]).tolist()
    assert len(catalogue.tag_prior) == 2
    assert not space.refresh()


def test_new_tags_of_items_are_taken_in_at_once_while_the_catalogue_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = shop("mug")
    space = spaced(catalogue)
    catalogue.describe(Item("pan", "Pan", ("pan",)))
    monkeypatch.setattr("streamer.pipeline.space.SMALL_CATALOGUE", 2)
    space.take_in_new_tags()
    assert len(catalogue.tag_prior) == 1
    monkeypatch.undo()
    space.take_in_new_tags()
    assert len(catalogue.tag_prior) == 2


def test_what_changes_while_a_refresh_is_worked_out_is_in_the_next() -> None:
    catalogue = shop("mug")
    space = spaced(catalogue)
    catalogue.describe(Item("pan", "Pan", ("pan",)))
    work = space.outdated()
    assert work is not None
    for n in range(2000):  # enough for all tables to move
        catalogue.describe(Item(f"cup {n}", "Cup", (f"cup {n}",)))
    catalogue.describe(Item("pan", "Pan", ("a new tag",)))
    space.take_in(work())
    assert len(catalogue.tag_prior) == 2
    assert catalogue.has_new_tags
    assert space.refresh()
    assert len(catalogue.tag_prior) == 2003
    assert not catalogue.has_new_tags
    assert catalogue.tag_prior.sum(axis=0) == pytest.approx(np.ones(POPULATION))


def test_a_refresh_that_another_overtook_is_dropped() -> None:
    catalogue = shop("mug")
    space = spaced(catalogue)
    catalogue.describe(Item("pan", "Pan", ("pan",)))
    work = space.outdated()
    assert work is not None
    slow = work()
    catalogue.describe(Item("cup", "Cup", ("cup",)))
    space.take_in_new_tags()
    space.take_in(slow)
    assert len(catalogue.tag_prior) == 3
    assert space.gram.tolist() == factors.gram(catalogue.vectors[:3]).tolist()


def test_tags_of_events_alone_make_nothing_anew() -> None:
    catalogue = shop("mug")
    space = spaced(catalogue)
    catalogue.learn_tag("a search")
    space.take_in_new_tags()
    assert len(catalogue.tag_prior) == 1


def test_an_empty_catalogue_gives_nobody_a_direction() -> None:
    assert not spaced(Catalogue(DIM)).fold_in(*hashes(["mug"])).any()


def test_vectors_of_another_size_live_in_another_model() -> None:
    assert ItemSpace(Catalogue(8), 4).model == "bpr-8/1"
    assert ItemSpace(Catalogue(32), 4).model == "bpr-32/1"
