"""Many photos at once: reading, decoding, parsing and writing overlap.

One thread reads files, in order, and forms batches; a few decode; the calling thread parses; a few
draw, encode and write. A batch is made of the same photos whichever thread is slow.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from schnet.batch.budget import PixelBudget
from schnet.batch.results import Outcome, ResultWriter
from schnet.batch.workspace import Job
from schnet.data.reading import EncodedImage, decode_upright, open_image
from schnet.errors import InputError
from schnet.parsing import ByteArray, Parsing
from schnet.photo_parser import PhotoParser

MAX_PIXELS = 64_000_000
"""Of all photos in memory: five of 12 megapixels. A pixel takes about ten bytes at most: the photo,
its labels, an overlay and what is drawn on the way, so that 64 million take 0.6 GB."""

WRITERS = 2
"""Threads that draw, encode and write."""


@dataclass(frozen=True)
class _Loaded:
    job: Job
    pixels: int
    image: Future[tuple[ByteArray, float]]


class PhotoPipeline:
    """Parses jobs with bounded memory; for one run."""

    def __init__(
        self,
        parser: PhotoParser,
        writer: ResultWriter,
        *,
        batch_size: int,
        workers: int,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Take the parts.

        Args:
            parser: parses batches, in the calling thread.
            writer: writes results, in threads.
            batch_size: photos that are parsed together, fewer where they are large.
            workers: threads that decode.
            max_pixels: of all photos in memory; one that has more is there alone.
        """
        self._parser = parser
        self._writer = writer
        self._batch_size = batch_size
        self._budget = PixelBudget(max_pixels, 2 * batch_size + workers + 2 * WRITERS)
        self._decoders = ThreadPoolExecutor(workers, "decode")
        self._writers = ThreadPoolExecutor(WRITERS, "write")
        self._batches: queue.SimpleQueue[list[_Loaded] | BaseException | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Parse photos.

        Args:
            jobs: what to do; a photo that cannot be read is noted as failed.

        Yields:
            What became of each, as it is finished and noted.

        Raises:
            OSError: a result cannot be written.
            InputError: the device has not the memory for a batch.
            RuntimeError: something else went wrong; it names the photo, and what it comes from.
        """
        reader = threading.Thread(target=self._read, args=(jobs,), name="read", daemon=True)
        reader.start()
        written: deque[Future[None]] = deque()
        try:
            while (batch := self._batches.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                for loaded, parsing, seconds in self._parse(batch):
                    written.append(self._writers.submit(self._write, loaded, parsing, seconds))
                while written and written[0].done():
                    written.popleft().result()
                yield from self._finished()
            while written:
                written.popleft().result()
                yield from self._finished()
            yield from self._finished()
        finally:
            # What is being written is finished; what has not begun is left for the next run.
            self._budget.stop()
            self._writers.shutdown(cancel_futures=True)
            self._decoders.shutdown(cancel_futures=True)
            reader.join()

    def _finished(self) -> Iterator[Outcome]:
        while not self._outcomes.empty():
            yield self._outcomes.get()

    def _read(self, jobs: Sequence[Job]) -> None:
        """Read files and hand batches on, until the end or an error, which is handed on too."""
        batch: list[_Loaded] = []
        job = None
        try:
            for job in jobs:
                try:
                    encoded = open_image(job.path)
                except InputError as error:
                    self._outcomes.put(self._writer.fail(job, error))
                    continue
                pixels = encoded.height * encoded.width
                # Half the bound, so that a batch never waits for room that it takes itself.
                full = sum(loaded.pixels for loaded in batch) + pixels > self._budget.pixels // 2
                if batch and full:
                    self._batches.put(batch)
                    batch = []
                if not self._budget.enter(pixels):
                    return
                batch.append(_Loaded(job, pixels, self._decoders.submit(_decode, encoded)))
                if len(batch) == self._batch_size:
                    self._batches.put(batch)
                    batch = []
            if batch:
                self._batches.put(batch)
            self._batches.put(None)
        except BaseException as error:
            self._batches.put(_named(error, [job] if job else []))

    def _parse(self, batch: Sequence[_Loaded]) -> list[tuple[_Loaded, Parsing, float]]:
        """Parse what of a batch can be decoded; each with the seconds spent on it."""
        ready, images, seconds = [], [], []
        for loaded in batch:
            try:
                image, spent = loaded.image.result()
            except InputError as error:
                self._budget.leave(loaded.pixels)
                self._outcomes.put(self._writer.fail(loaded.job, error))
                continue
            except Exception as error:
                raise _named(error, [loaded.job]) from error
            ready.append(loaded)
            images.append(image)
            seconds.append(spent)
        if not ready:
            return []
        start = time.perf_counter()
        try:
            parsings = self._parser.parse_arrays(images)
        except Exception as error:
            raise _named(error, [loaded.job for loaded in ready]) from error
        share = (time.perf_counter() - start) / len(ready)
        return list(zip(ready, parsings, (spent + share for spent in seconds), strict=True))

    def _write(self, loaded: _Loaded, parsing: Parsing, seconds: float) -> None:
        try:
            self._outcomes.put(self._writer.write(loaded.job, parsing, seconds))
        except Exception as error:
            raise _named(error, [loaded.job]) from error
        finally:
            self._budget.leave(loaded.pixels)


def _decode(encoded: EncodedImage) -> tuple[ByteArray, float]:
    start = time.perf_counter()
    return decode_upright(encoded), time.perf_counter() - start


def _named(error: BaseException, jobs: Sequence[Job]) -> BaseException:
    """Name the photos in an error that does not say what it is about."""
    if isinstance(error, (InputError, OSError)) or not isinstance(error, Exception):
        return error
    names = ", ".join(str(job.path) for job in jobs)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return InputError(
            f"there is not enough memory to parse {names}: give --batch-size 1, a smaller INPUT."
            "SIZE, or --device cpu"
        )
    wrapped = RuntimeError(f"parsing {names} failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
