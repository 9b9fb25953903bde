"""Questions that wait at the same time are embedded together.

Most of what a question costs is reading the model's weights from memory, which is done once for all of them. Nobody
waits for others to come: who finds a free thread is embedded at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from groundplan.knowledge.embedding.encoder import FEW_TEXTS
from groundplan.knowledge.model import Embedder, Vectors

_THREADS: Final = 2
"""As many as the embedded model has threads."""
_SHORT_CHARS: Final = 240

_PendingText = tuple[str, Future[Vectors]]


class LazyEmbedder:
    """An embedder that is made when it is first asked. Any thread may ask."""

    def __init__(self, make: Callable[[], Embedder]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As it does; what making it raises is raised here, and the next one who asks tries again."""
        with self._lock:
            made = self._embedder = self._embedder or self._make()
        return made.embed(texts)


class RunOnceAfter:
    """Has work done, once, when so many texts were embedded: it takes what only whoever is asked often gets back. In a
    thread of its own; any thread may embed."""

    def __init__(self, after: int, work: Callable[[], None]) -> None:
        self._remaining = after
        self._work = work
        self._lock = threading.Lock()

    def count_texts(self, embedder: Embedder) -> Embedder:
        """That embedder, whose texts are counted."""
        return _Counting(embedder, self._count)

    def _count(self, texts: int) -> None:
        if self._remaining <= 0:
            return
        with self._lock:
            before, self._remaining = self._remaining, self._remaining - texts
            due = before > 0 >= self._remaining
        if due:
            try:
                threading.Thread(target=self._work, name="often", daemon=True).start()
            except RuntimeError:  # this user may have no more threads now
                self._remaining = 1


class _Counting:
    def __init__(self, embedder: Embedder, count: Callable[[int], None]) -> None:
        self._embedder, self._count = embedder, count

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = self._embedder.embed(texts)
        self._count(len(texts))
        return vectors


class BatchingEmbedder:
    """Embeds texts in threads of its own. Any thread may ask."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._threads = ThreadPoolExecutor(_THREADS, "question")
        self._lock = threading.Lock()
        self._waiting: deque[_PendingText] = deque()

    def submit(self, text: str) -> Future[Vectors]:
        """The vector of a text, as soon as it is computed; what the embedder raises is raised by the result."""
        asked: Future[Vectors] = Future()
        with self._lock:
            self._waiting.append((text, asked))
        self._threads.submit(self._embed_waiting)
        return asked

    def _embed_waiting(self) -> None:
        """Those that wait now; perhaps another thread has taken all of them already."""
        taken = self._take_batch()
        if not taken:
            return
        try:
            vectors = self._embedder.embed([text for text, _ in taken])
        except Exception as error:  # noqa: BLE001 -- told to whoever asked, by the result
            for _, asked in taken:
                asked.set_exception(error)
            return
        for (_, asked), vector in zip(taken, vectors, strict=True):
            asked.set_result(vector)

    def _take_batch(self) -> list[_PendingText]:
        """The next ones, all of them short or one that is not: others would be computed at its length."""
        with self._lock:
            taken: list[_PendingText] = []
            while self._waiting and len(taken) < FEW_TEXTS:
                short = len(self._waiting[0][0]) <= _SHORT_CHARS
                if short or not taken:
                    asked = self._waiting.popleft()
                    if asked[1].set_running_or_notify_cancel():  # from now on nobody can take it back
                        taken.append(asked)
                if not short:
                    break
            return taken
