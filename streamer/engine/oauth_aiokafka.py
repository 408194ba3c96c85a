"""Access tokens as aiokafka takes them. Apart from `oauth.py`: the client package does without aiokafka."""

import asyncio

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from streamer.engine.oauth import TokenError, Tokens


class AiokafkaTokens(AbstractTokenProvider):
    """A failure counts as a connection that could not be made: aiokafka tries again."""

    def __init__(self, source: Tokens) -> None:
        self._source = source

    async def token(self) -> str:
        """A token; the endpoint is asked in a thread."""
        try:
            return await asyncio.to_thread(self._source.token)
        except TokenError as exc:
            raise KafkaConnectionError(str(exc)) from exc
