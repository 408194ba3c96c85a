"""What an evaluation found, for programs and for people."""

from typing import Any

import msgspec

from streamer.tools.evaluate.run import Evaluation
from streamer.tools.evaluate.tally import Tally

DIGITS = 5  # of a rate: more is noise below 100,000 tests


class Report(msgspec.Struct):
    """Figures by name; rates and shares in 0..1, times in µs."""

    events: int
    tested: int
    mix: dict[str, float]
    experts: dict[str, dict[str, float]]  # `worth`: what the mix's hr@20 loses without the expert
    references: dict[str, dict[str, float]]
    new_users: dict[str, float]
    old_users: dict[str, float]
    interests: dict[str, Any]
    recovery: dict[str, float]  # events until a profile follows a switch of interest
    us_learn: float  # one event at a time: a batch shares most of it
    us_rank: float


def report(evaluation: Evaluation) -> Report:
    """The figures of an evaluation that has ended."""
    items = len(evaluation.items)

    def figures(tally: Tally) -> dict[str, float]:
        return {name: round(value, DIGITS) for name, value in tally.figures(items).items()}

    return Report(
        events=evaluation.events,
        tested=evaluation.mix.tested,
        mix=figures(evaluation.mix),
        experts={
            name: {**figures(tally), "worth": round(evaluation.worth()[name], DIGITS)}
            for name, tally in evaluation.experts.items()
        },
        references={name: figures(tally) for name, tally in evaluation.references.items()},
        new_users=figures(evaluation.new),
        old_users=figures(evaluation.old),
        interests=evaluation.interests.figures(),
        recovery=evaluation.recovery(),
        us_learn=round(evaluation.times.us_learn(), 1),
        us_rank=round(evaluation.times.us_rank(), 1),
    )
