"""`streamer bench`: what a worker does on one core beside its peers, and how cost, latency and memory grow.

The broker, and whatever loads and watches, have one core; the process under test has another. All peers read the same
backlog; rounds alternate, so that what disturbs the machine disturbs all.
"""
