"""Pure functions over a batch: a batch and its state in, effects out. No Kafka, clock, environment or logging."""

from streamer.model import compiled  # before any kernel of ours: says where they are kept

__all__ = ["compiled"]
