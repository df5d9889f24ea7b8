"""A bound on what is in memory at a time: photos are counted by their pixels and by number."""

from __future__ import annotations

import threading


class PixelBudget:
    """Lets photos in as others leave; one that is larger than the bound comes in alone."""

    def __init__(self, pixels: int, photos: int) -> None:
        """Set the bounds.

        Args:
            pixels: of all photos in memory together.
            photos: how many there are at most.
        """
        self.pixels, self.photos = pixels, photos
        self._pixels_in, self._photos_in = 0, 0
        self._stopped = False
        self._changed = threading.Condition()

    def enter(self, pixels: int) -> bool:
        """Wait until a photo may come in.

        Returns:
            False where the work was stopped.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(pixels))
            if not self._stopped:
                self._pixels_in += pixels
                self._photos_in += 1
            return not self._stopped

    def leave(self, pixels: int) -> None:
        """Let go of a photo that had come in."""
        with self._changed:
            self._pixels_in -= pixels
            self._photos_in -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody in any more, and nobody wait."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        room = self._photos_in < self.photos and self._pixels_in + pixels <= self.pixels
        return room or not self._photos_in
