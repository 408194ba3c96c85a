"""Numbers only: decay, interests, factors. Pure numpy and numba; time and randomness are arguments."""

from streamer.model import compiled

__all__ = ["compiled"]
