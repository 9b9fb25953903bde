"""The embedding model against values published for it, and against itself in every batch."""

import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.settings import load_settings
from groundplan.knowledge.embedding import openvino_encoder
from groundplan.knowledge.embedding.encoder import WINDOW_TOKENS, Encoder, quantise
from groundplan.knowledge.embedding.onnx_encoder import OnnxEncoder
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder, load_question_encoder, precision_of
from groundplan.knowledge.embedding.wire import EARLY
from groundplan.runtime.models import MINILM, ensure

_LET_GO = """
import gc, mmap, signal, sys
from pathlib import Path
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder, load_question_encoder
documents = OpenVinoEncoder(Path(sys.argv[1]), threads=1)
questions = load_question_encoder(Path(sys.argv[1]), documents)
del documents, questions
gc.collect()
size, told = 5 * mmap.PAGESIZE, []
later = [mmap.mmap(-1, size) for _ in range(300)]
for each in later:
    each.write(bytes([7]) * size)
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
signal.raise_signal(signal.SIGUSR1)
print(len(told), sum(each[:] != bytes([7]) * size for each in later))
"""


_ASKS = ["How many days may pass until", "Who decides in Berlin about", "What does the contract of 2024 say about"]
_WHATS = ["a refund is paid to a customer", "travel to other countries", "invoices above 10,000 euros", "lost laptops"]


@pytest.fixture(scope="module")
def plain() -> Iterator[Encoder]:
    with threadpool_limits(limits=1, user_api="blas"):
        yield Encoder(ensure(load_settings().models, MINILM.name))


@pytest.fixture(scope="module")
def fast() -> OpenVinoEncoder:
    return OpenVinoEncoder(ensure(load_settings().models, MINILM.name))


@pytest.fixture(params=["plain", "fast"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    found: Encoder = request.getfixturevalue(request.param)
    return found


def test_published_similarities_are_reproduced(encoder: Encoder) -> None:
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    vectors = encoder.embed(texts)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[1:] @ vectors[0], [0.695, 0.943, 0.257], atol=2e-3)


def test_paraphrases_are_nearer_than_what_is_unrelated(encoder: Encoder) -> None:
    question, paraphrase, unrelated = encoder.embed(
        ["How many vacation days do I get?", "Employees have 28 days of paid leave a year.", "Ports move with a flag."]
    )
    assert question @ paraphrase > question @ unrelated + 0.3


def test_a_text_has_the_same_vector_in_any_company(encoder: Encoder) -> None:
    texts = [
        "short",
        "a somewhat longer sentence about trains and planes",
        "",
        "word " * 700,
        "猫は眠る",
        "\U0001f600 " * 3,
    ]
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    assert np.allclose(encoder.embed(texts), alone, atol=1e-5)
    assert encoder.embed([]).shape == (0, 384)


def test_the_fast_encoder_computes_what_the_plain_one_does(plain: Encoder, fast: OpenVinoEncoder) -> None:
    texts = [
        "a dog",
        "",
        "Employees have 28 days of paid leave a year. " * 9,
        "long " * 600,
        "猫は眠る",
        *map(str, range(40)),
    ]
    wanted, found = plain.embed_counted(texts), fast.embed_counted(texts)
    assert found.tokens == wanted.tokens
    assert (found.vectors * wanted.vectors).sum(axis=1).min() > 0.9999
    reduced = OpenVinoEncoder(ensure(load_settings().models, MINILM.name), "bfloat16", threads=1)
    assert (reduced.embed(texts) * wanted.vectors).sum(axis=1).min() > 0.998


@pytest.fixture(scope="module")
def small() -> OnnxEncoder:
    return OnnxEncoder(ensure(load_settings().models, MINILM.name))


@pytest.mark.parametrize("multiplies", [True, False])
def test_questions_are_embedded_in_bytes(
    fast: OpenVinoEncoder, monkeypatch: pytest.MonkeyPatch, multiplies: bool
) -> None:
    """By OpenVINO where the processor multiplies them (elsewhere it computes as much), else by ONNX Runtime."""
    folder = ensure(load_settings().models, MINILM.name)
    monkeypatch.setattr(openvino_encoder, "_has_int8_instructions", lambda: multiplies)
    questions = load_question_encoder(folder, fast)
    assert (type(questions), questions.precision) == (OpenVinoEncoder if multiplies else OnnxEncoder, "int8")
    texts = ["a dog", "How many days of paid leave do I get?", "猫は眠る", "long " * 600, "", *map(str, range(9))]
    found, wanted = np.concatenate([questions.embed([text]) for text in texts]), fast.embed(texts)
    assert (questions.embed(texts) * found).sum(axis=1).min() > 0.99, "together as well as alone"
    similar = (found * wanted).sum(axis=1)
    assert similar[:3].min() > 0.998
    assert similar.min() > 0.99, "of one word again and again and of next to nothing, too"
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_the_plain_encoder_embeds_questions_itself(plain: Encoder) -> None:
    assert load_question_encoder(ensure(load_settings().models, MINILM.name), plain) is plain


def test_questions_are_embedded_as_documents_where_their_library_is_not_installed(
    fast: OpenVinoEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_encoder, "_has_int8_instructions", lambda: False)
    monkeypatch.setitem(sys.modules, "groundplan.knowledge.embedding.onnx_encoder", None)
    assert load_question_encoder(ensure(load_settings().models, MINILM.name), fast) is fast


@pytest.mark.parametrize("computes", ["bytes", "bytes elsewhere", "float32", "plain"])
def test_questions_are_embedded_by_the_first_layers_alone(
    fast: OpenVinoEncoder, plain: Encoder, monkeypatch: pytest.MonkeyPatch, computes: str
) -> None:
    folder = ensure(load_settings().models, MINILM.name)
    monkeypatch.setattr(openvino_encoder, "_has_int8_instructions", lambda: computes == "bytes")
    if computes == "float32":
        monkeypatch.setitem(sys.modules, "groundplan.knowledge.embedding.onnx_encoder", None)
    early = load_question_encoder(folder, plain if computes == "plain" else fast, EARLY)
    texts = [f"{ask} {what}?" for ask in _ASKS for what in _WHATS]
    monkeypatch.setattr(plain, "_layers", plain._layers[:EARLY])
    found, wanted = np.concatenate([early.embed([text]) for text in texts]), plain.embed(texts)
    assert (found * wanted).sum(axis=1).min() > (0.997 if "bytes" in computes else 0.99999)


def test_which_processor_multiplies_bytes_is_read_from_what_it_says() -> None:
    assert openvino_encoder._has_int8_instructions() == (" avx512_vnni " in Path("/proc/cpuinfo").read_text())


def test_questions_in_bytes_are_as_near_to_float32_as_is_said(small: OnnxEncoder, plain: Encoder) -> None:
    """Of whole questions. If inputs and weights were not made equally hard to tell, it were .993; without a scale for
    each token .996."""
    texts = [f"{ask} {what}?" for ask in _ASKS for what in _WHATS]
    found, wanted = np.concatenate([small.embed([text]) for text in texts]), plain.embed(texts)
    similar = (found * wanted).sum(axis=1)
    assert similar.min() > 0.998
    assert np.median(similar) > 0.999


def test_threads_share_the_encoder_of_questions(small: OnnxEncoder) -> None:
    texts = [[f"question {number} " * size] for number in range(8) for size in (1, 7, 30, 200)]
    alone = [small.embed(some) for some in texts]
    with ThreadPoolExecutor(8) as pool:
        for wanted, found in zip(alone, pool.map(small.embed, texts), strict=True):
            assert np.allclose(found, wanted, atol=1e-5)


def test_a_signal_after_encoders_were_let_go_is_written_over_nothing() -> None:
    """In a process of its own, which it would end."""
    folder = ensure(load_settings().models, MINILM.name)
    ran = subprocess.run([sys.executable, "-c", _LET_GO, str(folder)], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "1 0\n"), ran.stderr


@pytest.mark.parametrize("lengths", [(), (24, 32)])
def test_threads_share_the_fast_encoder(lengths: tuple[int, ...]) -> None:
    fast = OpenVinoEncoder(ensure(load_settings().models, MINILM.name), single_lengths=lengths)
    fast.prepare()
    texts = [[f"text {number} {part}" * (1 + part) for part in range(6)] for number in range(8)]
    texts += [[f"question {number} " * size] for number in range(8) for size in (1, 7, 10, 20)]
    alone = [fast.embed(some) for some in texts]
    with ThreadPoolExecutor(8) as pool:
        for wanted, found in zip(alone, pool.map(fast.embed, texts), strict=True):
            assert np.allclose(found, wanted, atol=1e-4)


def test_a_short_text_after_a_longer_one_is_embedded_by_itself(fast: OpenVinoEncoder) -> None:
    alone = OpenVinoEncoder(ensure(load_settings().models, MINILM.name), threads=1, single_lengths=(24,))
    alone.prepare()
    for text in ("Which hotels may be booked on travels to other countries, and for how much a night?", "Hotels", ""):
        assert np.allclose(alone.embed([text]), fast.embed([text]), atol=1e-4), text


def test_the_shipped_tokenizer_would_cut_a_text_and_ours_does_not(plain: Encoder) -> None:
    folder = ensure(load_settings().models, MINILM.name)
    text = "word " * 1000
    assert len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids) == 128
    assert plain.embed_counted([text]).tokens == (1000,)


def test_only_known_precisions_are_taken() -> None:
    assert precision_of("bfloat16") == "bfloat16"
    with pytest.raises(Invalid) as caught:
        precision_of("int8")
    assert caught.value.code == "embedding_precision"


def test_no_part_of_a_long_text_is_dropped(encoder: Encoder) -> None:
    start = "The quarterly report covers sales, returns and staffing. " * 60
    embedded = encoder.embed_counted([start, f"{start} Cats sleep on warm roofs all day long. " + "Cats purr. " * 60])
    assert embedded.tokens[1] > embedded.tokens[0] > 2 * WINDOW_TOKENS
    cats = encoder.embed(["Cats purr on roofs."])[0]
    assert embedded.vectors[1] @ cats > embedded.vectors[0] @ cats + 0.1


def test_a_shortened_text_is_its_beginning_and_its_end(plain: Encoder) -> None:
    text = "What is refunded of x^2+3y where C6H12O6 burns? " + "acetylsalicylic " * 12 + "and who pays for it?"
    short = plain.truncate(text, 24)
    assert short == "What is refunded of x^2+3y where C6H12 and who pays for it?"
    assert plain.truncate(text, 0) == text and plain.truncate("How many days?", 46) == "How many days?"
    assert plain.truncate("Wie viele Tage, bitte?", 4).startswith("Wie")


@settings(max_examples=60, deadline=None)
@given(st.text("aeiostn .,^+=()0123456789ßé退款", min_size=1, max_size=400), st.integers(8, 60))
def test_no_text_is_longer_than_it_is_shortened_to(plain: Encoder, text: str, most: int) -> None:
    tokenizer = plain._tokenizer
    short = plain.truncate(text, most)
    assert len(tokenizer.encode(short, add_special_tokens=False).ids) <= most + 2, (
        "a word that is cut may read otherwise"
    )
    if len(tokenizer.encode(text, add_special_tokens=False).ids) <= most:
        assert short == text


def test_words_are_embedded_as_they_are_meant_in_their_texts(encoder: Encoder) -> None:
    texts = ["The plant pays its workers", "The plant needs water and light", "The factory pays its workers"]
    spoken = encoder.embed_words(texts, [[(4, 9), (10, 14)], [(4, 9)], [(4, 11)]])
    assert np.allclose([each.vector for each in spoken], encoder.embed(texts), atol=1e-5)
    assert [each.words.shape for each in spoken] == [(2, 384), (1, 384), (1, 384)]
    assert [each.tokens for each in spoken] == list(encoder.embed_counted(texts).tokens)
    paid, green, factory = (each.words[0] for each in spoken)
    assert factory @ paid > factory @ green + 0.1
    rows = np.frombuffer(quantise(spoken[0].words), dtype=np.int8).reshape(2, 384).astype(np.float32)
    assert ((rows / np.linalg.norm(rows, axis=1, keepdims=True)) * spoken[0].words).sum(axis=1).min() > 0.999


def test_words_of_long_and_empty_texts_have_vectors(encoder: Encoder) -> None:
    long = "word " * 700 + "giraffe"
    far, nothing, beside = encoder.embed_words([long, "", "a b"], [[(3500, 3507)], [(0, 4)], [(40, 44)]])
    assert far.words[0] @ encoder.embed(["giraffe"])[0] > 0.5, "in its third window"
    assert np.allclose(nothing.words[0], nothing.vector) and np.allclose(beside.words[0], beside.vector)
    assert encoder.embed_words([], []) == []


def test_words_are_the_same_in_any_company_and_encoder(plain: Encoder, fast: OpenVinoEncoder) -> None:
    texts, places = ["a dog runs", "Ports move with a flag " * 80, "猫は眠る"], [[(2, 5)], [(460, 465)], [(0, 1)]]
    wanted, found = plain.embed_words(texts, places), fast.embed_words(texts, places)
    for one, other, text, own in zip(wanted, found, texts, places, strict=True):
        assert (one.words * other.words).sum() > 0.999
        assert np.allclose(fast.embed_words([text], [own])[0].words, other.words, atol=1e-4)


def test_a_wrong_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Encoder(tmp_path)
    assert caught.value.code == "embedding_model"
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(Unavailable):
        Encoder(tmp_path)


class Short:
    """A request of a model whose memory is short for so many times: as it begins, or as it ends."""

    fails: ClassVar[list[str]] = []

    def set_input_tensor(self, place: int, array: object) -> None:
        """It has it."""

    def start_async(self) -> None:
        self.fail("start")

    def wait(self) -> None:
        self.fail("wait")

    def get_output_tensor(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(data=np.full(1, number))

    def fail(self, where: str) -> None:
        if self.fails and self.fails[0] == where:
            self.fails.pop(0)
            raise RuntimeError("can't alloc")


@pytest.mark.parametrize("fails", [["wait"] * 5, ["start"] * 5])
def test_what_computes_is_there_again_after_memory_was_short(fails: list[str]) -> None:
    """There are two of it: were they lost, each question from then on would wait for good."""
    encoder = OpenVinoEncoder.__new__(OpenVinoEncoder)
    encoder._free, encoder._tensor, Short.fails = queue.LifoQueue(), lambda array: array, list(fails)
    for _ in range(2):
        encoder._free.put(Short())
    for _ in range(5):
        with pytest.raises(RuntimeError, match="alloc"):
            list(encoder._compute([[[1, 2]]], 7))
        assert encoder._free.qsize() == 2
    assert [int(found[0]) for found in encoder._compute([[[1, 2]]] * 3, 7)] == [7, 7, 7]
