"""The main process's side of one job: it answers the worker's questions, and hears its news.

Owns nothing that outlives the job. Must not know what the job is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from layrfs.pipeline.jobs import Answer, ContentAnswer, News, PlacesAnswer, PlacesQuestion, Question
from layrfs.pipeline.placing import Placement
from layrfs.pipeline.transfers import FindContent

DIGESTS_AT_ONCE = 64
"""A lookup in the catalog takes about 15 microseconds, and other requests wait meanwhile."""


class JobOffice:
    """Of one job; see `layrfs.pipeline.pool.Office`."""

    def __init__(self, placement: Placement, find_content: FindContent, hear: Callable[[News, float], float]) -> None:
        self._placement = placement
        self._find_content = find_content
        self._hear = hear
        self._at_once = 0.0

    async def answer(self, question: Question) -> Answer:
        """Where pieces can go, or what is stored already."""
        if isinstance(question, PlacesQuestion):
            places = await self._placement.find(question.wishes)
            return PlacesAnswer(question.job, question.question, tuple(places))
        return ContentAnswer(question.job, question.question, await self._content(question.digests))

    def restarted(self) -> None:
        """Another worker does the job from its beginning."""
        self._placement.restart()

    def hear(self, news: News) -> None:
        """What a worker tells without being asked."""
        self._at_once = self._hear(news, self._at_once)

    async def _content(self, digests: Sequence[bytes]) -> tuple[tuple[bytes, int, int], ...]:
        found: list[tuple[bytes, int, int]] = []
        for at in range(0, len(digests), DIGESTS_AT_ONCE):
            known = self._find_content(digests[at : at + DIGESTS_AT_ONCE])
            found += [(digest, content, length) for digest, (content, length) in known.items()]
            await trio.lowlevel.checkpoint()
        return tuple(found)
