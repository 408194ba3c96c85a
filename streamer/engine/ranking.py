"""Rankings of this worker: one ranker for all its partitions, and what its predictions were worth."""

from streamer.model.experts import NAMES
from streamer.pipeline import recommend
from streamer.pipeline.publish import World
from streamer.pipeline.quality import Meter
from streamer.pipeline.rank import Ranker
from streamer.pipeline.recommend import Wanted
from streamer.pipeline.space import ItemSpace
from streamer.recommendation import Quality, Recommendations, SimilarItems


class Ranking:
    """Made before item models are read: from then on their transitions are kept."""

    def __init__(self, space: ItemSpace) -> None:
        self.ranker = Ranker(space)
        self.meter = Meter()

    def recommend(self, world: World, slot: int, user_id: str, wanted: Wanted) -> Recommendations:
        """The best for a user, as of their latest event. Changes nothing."""
        return recommend.recommend(self.ranker, world, slot, user_id, wanted)

    def similar(self, item_id: str, n: int) -> SimilarItems | None:
        """The n items most alike; None for an unknown item. Changes nothing."""
        return recommend.similar(self.ranker, item_id, n)

    def quality(self) -> Quality:
        """What predictions were worth, and what each expert counts for all users."""
        weights = dict(zip(NAMES, self.ranker.mix.weights[0].tolist(), strict=True))
        return self.meter.quality(self.ranker.space.model, weights)
