"""An item's model as it travels: from its owner through `item-models` to every worker."""

from typing import Final

import msgspec

from streamer.errors import StateError

MODEL_LAYOUT: Final = 2


class ItemModel(msgspec.Struct, frozen=True, array_like=True):
    """What the events of all users taught about an item. Arrays are little-endian.

    `popularity` is the number of events decayed with 30 days as of `ts` (ms), `lately` with 1 and 7 days. Transitions
    are in numbers as of `landmark` (ms), see `model.transitions`. Layout 1 had neither of the two.
    """

    layout: int
    item_id: str
    events: int
    popularity: float
    ts: int
    vector: bytes  # f32[k]
    tags: tuple[str, ...] = ()  # of events, where the catalogue has none
    lately: tuple[float, float] = (0.0, 0.0)
    landmark: int = 0
    before: bytes = b""  # u64[n] hashes of the items that came before it
    weights: bytes = b""  # f32[n, 2] by memory length


_decode = msgspec.msgpack.Decoder(ItemModel).decode


def decode_model(value: bytes) -> ItemModel:
    """A model from its topic. Raises StateError for one of a newer worker."""
    model = _decode(value)
    if model.layout > MODEL_LAYOUT:
        raise StateError(f"item model of layout {model.layout}, this worker knows {MODEL_LAYOUT}: upgrade all workers")
    return model
