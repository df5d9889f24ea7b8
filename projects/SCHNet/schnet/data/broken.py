"""Training images that turn out broken: each is named once and counted, up to a limit."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from schnet.errors import InputError

logger = logging.getLogger(__name__)


class BrokenImages:
    """The broken images that a run has met, of all its processes and before it was resumed.

    Attributes:
        reasons: why each cannot be used, by the image's file name; in the order they were met.
    """

    def __init__(self, limit: int) -> None:
        """Start without one.

        Args:
            limit: how many the run goes on without; 0 refuses the first.
        """
        self._limit = limit
        self._news: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def add(self, found: Mapping[str, str]) -> None:
        """Count images that are new, and warn of each.

        Args:
            found: reasons, one sentence each, by file name.

        Raises:
            InputError: there are more than the limit.
        """
        for name, reason in found.items():
            if name in self.reasons:
                continue
            if self._limit == 0:
                raise InputError(reason)
            self.reasons[name] = self._news[name] = reason
            if len(self.reasons) > self._limit:
                raise InputError(
                    f"{len(self.reasons)} training images are broken ({', '.join(self.reasons)}; "
                    f"of the last: {reason}): repair or remove them, or raise "
                    f"DATALOADER.MAX_BAD_IMAGES, which is {self._limit}"
                )
            logger.warning(
                "broken image %d of at most %d, another one takes its place: %s",
                len(self.reasons),
                self._limit,
                reason,
            )

    @property
    def has_news(self) -> bool:
        """Whether `take_news` would give an image."""
        return bool(self._news)

    def take_news(self) -> dict[str, str]:
        """The images added since the last call, for the other processes."""
        news, self._news = self._news, {}
        return news

    def state_dict(self) -> dict[str, str]:
        """All reasons, by file name."""
        return dict(self.reasons)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Count what an earlier part of the run has met, without another warning."""
        self.reasons = dict(state)
        self._news = {}
