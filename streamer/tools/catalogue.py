"""A believable shop catalogue for the simulator: departments, shelves, brands, titles, prices. Pure, seeded."""

from itertools import accumulate
from random import Random
from typing import NamedTuple

from streamer.events import Item

CURRENCY = "EUR"  # of the catalogue's prices
ZIPF = 0.8  # popularity of the r-th item of a shelf is (r+1)^-0.8: shop catalogues measure 0.7 to 1

# department: (typical price in EUR, shelves, makers' names, qualities)
DEPARTMENTS: dict[str, tuple[float, str, str, str]] = {
    "outdoor": (
        70,
        "tent backpack sleeping-bag camp-stove headlamp",
        "Nordfell Larkspur Tarn",
        "ultralight waterproof",
    ),
    "kitchen": (45, "espresso cookware knife baking blender", "Bellavita Hearthstone Morrow", "cast-iron compact"),
    "books": (16, "crime science-fiction history poetry cookbook", "Quill Lantern Harbour", "hardcover illustrated"),
    "music": (120, "guitar piano vinyl headphones synthesizer", "Arioso Blackbird Tempo", "vintage wireless"),
    "garden": (28, "seeds bulbs pruning greenhouse compost", "Greenhand Meadow Oakley", "organic hardy"),
    "photography": (310, "camera lens tripod film darkroom", "Lumen Aperta Corvid", "full-frame analogue"),
    "cycling": (95, "road-bike gravel-bike helmet bike-light pannier", "Velora Pinion Breck", "carbon reflective"),
    "running": (
        80,
        "running-shoes trail-shoes sports-watch hydration compression",
        "Fleet Stride Kestrel",
        "cushioned light",
    ),
    "board-games": (
        34,
        "strategy-game party-game card-game puzzle miniatures",
        "Meeple Foxden Gambit",
        "cooperative solo",
    ),
    "computers": (420, "laptop keyboard monitor storage router", "Kernel Halden Nimbus", "quiet mechanical"),
    "home": (55, "lamp rug cushion vase candle", "Solace Birch Ember", "handmade linen"),
    "beauty": (22, "skincare perfume haircare makeup soap", "Verbena Opaline Rue", "vegan unscented"),
    "fashion": (60, "dress denim knitwear sneakers jacket", "Aldgate Marlow Fable", "recycled tailored"),
    "toys": (26, "building-blocks plush train-set doll kite", "Pipkin Juniper Wobble", "wooden classic"),
    "pets": (24, "dog-food cat-toy aquarium bird-feeder leash", "Whisker Rover Finch", "grain-free durable"),
    "art": (32, "watercolour oil-paint sketchbook easel calligraphy", "Umber Sable Atelier", "fine professional"),
    "crafts": (19, "knitting sewing embroidery pottery beads", "Thimble Weft Kilnworth", "merino starter"),
    "fitness": (50, "yoga kettlebell climbing rowing boxing", "Ascent Anvil Lotus", "foldable grippy"),
    "food": (12, "tea chocolate olive-oil spices cheese", "Saffron Larder Alba", "fairtrade smoked"),
    "travel": (
        85,
        "suitcase travel-guide adapter neck-pillow packing-cube",
        "Meridian Passage Roam",
        "cabin-size sturdy",
    ),
}
COLOURS = ("Forest", "Slate", "Ivory", "Ochre", "Indigo", "Rust", "Sage", "Charcoal", "Coral", "Sand")


class Shelf(NamedTuple):
    """The items of one narrow interest, the most popular first, and their cumulative popularity."""

    department: str
    tag: str
    items: tuple[Item, ...]
    popularity: tuple[float, ...]


def shelf_names() -> list[tuple[str, str]]:
    """(department, tag) of every shelf, departments taking turns, so that a small catalogue still has all of them."""
    shelves = [(name, spec[1].split()) for name, spec in DEPARTMENTS.items()]
    return [(name, tags[turn]) for turn in range(5) for name, tags in shelves]


def make_catalogue(rng: Random, items: int) -> list[Shelf]:
    """`items` items over at most 100 shelves, as evenly as it goes; fewer shelves when there are fewer items."""
    names = shelf_names()[:items]
    sizes = [items // len(names) + (n < items % len(names)) for n in range(len(names))]
    return [_shelf(rng, *name, size) for name, size in zip(names, sizes, strict=True)]


def _shelf(rng: Random, department: str, tag: str, size: int) -> Shelf:
    items = tuple(_item(rng, department, tag, number) for number in range(1, size + 1))
    return Shelf(department, tag, items, tuple(accumulate(rank**-ZIPF for rank in range(1, size + 1))))


def _item(rng: Random, department: str, tag: str, number: int) -> Item:
    typical, _, brands, qualities = DEPARTMENTS[department]
    brand, quality = rng.choice(brands.split()), rng.choice(qualities.split())
    noun = tag.replace("-", " ").title()
    return Item(
        item_id=f"{tag}-{number:03d}",
        title=f"{brand} {quality.title()} {noun}, {rng.choice(COLOURS)}",
        tags=(department, tag, f"brand:{brand.lower()}", quality),
        category=f"{department}/{tag}",
        price=round(typical * rng.lognormvariate(0, 0.5), 2),
        currency=CURRENCY,
    )
