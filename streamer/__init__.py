"""Real-time user profiles from event streams."""

__version__ = "0.1.0"
