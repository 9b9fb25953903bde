"""Batches the embedding of questions that wait at the same time.

Most of the cost of a question is reading the model's weights from memory, which is done once per batch. No question
waits for others to arrive: if a thread is free, it is embedded at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from groundplan.knowledge.embedding.encoder import MAX_QUESTION_BATCH
from groundplan.knowledge.model import Embedder, Vectors

_THREADS: Final = 2
"""As many threads as the embedded model has."""
_SHORT_CHARS: Final = 240

_PendingText = tuple[str, Future[Vectors]]


class LazyEmbedder:
    """An embedder that is created on first use. Thread-safe."""

    def __init__(self, make: Callable[[], Embedder]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts. Raises errors of creating the embedder, too; the next call tries again."""
        with self._lock:
            embedder = self._embedder = self._embedder or self._make()
        return embedder.embed(texts)


class RunOnceAfter:
    """Runs `work` once in a thread of its own after so many embedded texts, for preparation that only pays off where
    there are many. Thread-safe."""

    def __init__(self, after: int, work: Callable[[], None]) -> None:
        self._remaining = after
        self._work = work
        self._lock = threading.Lock()

    def count_texts(self, embedder: Embedder) -> Embedder:
        """A wrapper of the embedder that counts its texts."""
        return _CountingEmbedder(embedder, self._count)

    def _count(self, texts: int) -> None:
        if self._remaining <= 0:
            return
        with self._lock:
            before, self._remaining = self._remaining, self._remaining - texts
            is_due = before > 0 >= self._remaining
        if is_due:
            try:
                threading.Thread(target=self._work, name="often", daemon=True).start()
            except RuntimeError:  # this user may have no more threads now
                self._remaining = 1


class _CountingEmbedder:
    def __init__(self, embedder: Embedder, count: Callable[[int], None]) -> None:
        self._embedder, self._count = embedder, count

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = self._embedder.embed(texts)
        self._count(len(texts))
        return vectors


class BatchingEmbedder:
    """Embeds texts in batches in threads of its own. Thread-safe."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._threads = ThreadPoolExecutor(_THREADS, "question")
        self._lock = threading.Lock()
        self._waiting: deque[_PendingText] = deque()

    def submit(self, text: str) -> Future[Vectors]:
        """A future of the text's vector; it raises the embedder's errors."""
        future: Future[Vectors] = Future()
        with self._lock:
            self._waiting.append((text, future))
        self._threads.submit(self._embed_waiting)
        return future

    def _embed_waiting(self) -> None:
        """Embed the waiting texts, unless another thread has taken all of them already."""
        batch = self._take_batch()
        if not batch:
            return
        try:
            vectors = self._embedder.embed([text for text, _ in batch])
        except Exception as error:  # noqa: BLE001 -- raised to the callers by their futures
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), vector in zip(batch, vectors, strict=True):
            future.set_result(vector)

    def _take_batch(self) -> list[_PendingText]:
        """The next batch: several short texts or a single long one, since a batch is computed at its longest length."""
        with self._lock:
            batch: list[_PendingText] = []
            while self._waiting and len(batch) < MAX_QUESTION_BATCH:
                short = len(self._waiting[0][0]) <= _SHORT_CHARS
                if short or not batch:
                    pending = self._waiting.popleft()
                    if pending[1].set_running_or_notify_cancel():  # from now on it cannot be cancelled
                        batch.append(pending)
                if not short:
                    break
            return batch
