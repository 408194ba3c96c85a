"""`python -m streamer.cli`: the same as `streamer`, for processes that start one with their own Python."""

from streamer.cli import main

main()
