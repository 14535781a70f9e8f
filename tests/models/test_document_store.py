"""What is read from a store is what was written, also after a kill; ranking by it is scoring the pairs."""

from pathlib import Path

import numpy as np
import paddle
import pytest

from distill.data.pairs import PairLayout
from distill.data.readers import Rows
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert
from distill.errors import UserError
from models import document_store
from models.document_store import DocumentStore, Ranker, StoreWriter, relevance
from models.dual_encoder import MODEL_TYPES, DualEncoder, create_dual_encoder, tower_inputs
from tests.tiny import FILLERS, NOUNS, make_bert_folder

ABOUT = {"model": "m", "width": 3, "corpus": "c"}
LENGTHS = (9, 17)


def vectors(*counts: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, 3)).astype(np.float32) for n in counts]


def write(folder: Path, *blocks: tuple[str, list[np.ndarray]], **changes: object) -> StoreWriter:
    writer = StoreWriter(folder, ABOUT | changes)
    for names, states in blocks:
        writer.add(list(names), states)
    return writer


def test_documents_come_back_in_float16(tmp_path):
    first, second = vectors(2, 4, 1), vectors(3, seed=1)
    write(tmp_path / "store", ("abc", first), ("d", second)).finish()
    store = DocumentStore(tmp_path / "store")
    assert (len(store), store.names, store.lengths.tolist()) == (4, list("abcd"), [2, 4, 1, 3])
    states, mask = store.batch(np.array([3, 0, 2]))
    assert states.dtype == np.float16 and mask.tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    for found, expected in zip(states, (second[0], first[0], first[2]), strict=True):
        assert np.array_equal(found[: len(expected)], expected.astype(np.float16)) and not found[len(expected) :].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_killed_writer_continues_after_its_last_whole_block(tmp_path):
    """The kill leaves half a block in the files; the result has the bytes of an uninterrupted writer."""
    blocks = [("abc", vectors(2, 4, 1)), ("d", vectors(3, seed=1)), ("ef", vectors(1, 5, seed=2))]
    write(tmp_path / "whole", *blocks).finish()
    write(tmp_path / "store", *blocks[:2])
    unfinished = tmp_path / ".store.unfinished"
    for name in ("states.bin", "names.txt"):
        with open(unfinished / name, "ab") as file:
            file.write(b"half")
    with pytest.raises(UserError, match="no whole document store; run the same command of encode.py again"):
        DocumentStore(tmp_path / "store")
    whole = (unfinished / "states.bin").read_bytes()
    (unfinished / "states.bin").write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"states.bin: \d+ of 60 bytes; delete that folder and run the same command"):
        StoreWriter(tmp_path / "store", ABOUT)
    (unfinished / "states.bin").write_bytes(whole)
    writer = StoreWriter(tmp_path / "store", ABOUT)
    assert writer.documents == 4 and not writer.finished
    writer.add(list("ef"), blocks[2][1])
    writer.finish()
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "store" / path.name).read_bytes()
    assert StoreWriter(tmp_path / "store", ABOUT).finished


def test_other_content_is_neither_mixed_nor_lost(tmp_path):
    write(tmp_path / "store", ("a", vectors(2))).finish()
    with pytest.raises(UserError, match="holds other documents, or those of another model; --overwrite"):
        StoreWriter(tmp_path / "store", ABOUT | {"corpus": "other"})
    writer = StoreWriter(tmp_path / "store", ABOUT | {"corpus": "other"}, overwrite=True)
    writer.add(["b"], vectors(1))
    assert DocumentStore(tmp_path / "store").names == ["a"]  # until the new one is whole
    writer.finish()
    assert DocumentStore(tmp_path / "store").names == ["b"]
    write(tmp_path / "third", ("a", vectors(2)))
    with pytest.raises(UserError, match="unfinished store of other documents"):
        StoreWriter(tmp_path / "third", ABOUT | {"corpus": "other"})
    assert StoreWriter(tmp_path / "third", ABOUT).documents == 1
    assert StoreWriter(tmp_path / "third", ABOUT | {"corpus": "other"}, overwrite=True).documents == 0


def test_two_writers_of_one_store_do_not_mix(tmp_path):
    """Whichever finds that another has written stops; the other's store is whole."""
    first, second = (StoreWriter(tmp_path / "store", ABOUT) for _ in range(2))
    first.add(["a"], vectors(2))
    with pytest.raises(UserError, match="store: another process writes there too; wait for its end"):
        second.add(["a"], vectors(2))
    first.add(["b"], vectors(3))
    first.finish()
    store = DocumentStore(tmp_path / "store")
    assert store.names == ["a", "b"] and store.lengths.tolist() == [2, 3]


def test_an_empty_folder_becomes_a_store(tmp_path):
    (tmp_path / "store").mkdir()
    write(tmp_path / "store", ("a", vectors(2))).finish()
    assert DocumentStore(tmp_path / "store").names == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_link_stays_and_a_mount_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "v1", ("a", vectors(2))).finish()
    (tmp_path / "current").symlink_to("v1")
    writer = StoreWriter(tmp_path / "current", {**ABOUT, "corpus": "another"}, overwrite=True)
    writer.add(["b"], [vectors(3)])
    writer.finish()
    assert (tmp_path / "current").is_symlink() and DocumentStore(tmp_path / "v1").names == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]
    monkeypatch.setattr(Path, "is_mount", lambda path: path == (tmp_path / "v1").resolve())
    with pytest.raises(UserError, match="a mount, which cannot be exchanged as a whole; choose a folder in it"):
        StoreWriter(tmp_path / "v1", ABOUT)


def test_a_folder_of_something_else_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else than documents"):
        StoreWriter(tmp_path / "mine", ABOUT)
    with pytest.raises(UserError, match="holds something else than documents"):
        StoreWriter(tmp_path / "mine", ABOUT, overwrite=True)
    with pytest.raises(UserError, match="no whole document store; encode.py makes one"):
        DocumentStore(tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    with pytest.raises(UserError, match="holds something else than documents"):
        StoreWriter(".", ABOUT)
    with pytest.raises(UserError, match="mine: no whole document store; encode.py makes one"):
        DocumentStore(".")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_damaged_store_and_numbers_that_do_not_fit_are_refused(tmp_path):
    writer = write(tmp_path / "store", ("a", vectors(2)))
    with pytest.raises(UserError, match="too large for float16"):
        writer.add(["b"], [np.full((1, 3), 1e5, np.float32)])
    writer.finish()
    (tmp_path / "store" / "states.bin").write_bytes(b"12345")
    with pytest.raises(UserError, match="states.bin: 5 of 12 bytes"):
        DocumentStore(tmp_path / "store")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bert_folder(tmp_path_factory.mktemp("bert"), layers=2)


def create(folder: Path, model_type: str, outputs: int = 3) -> DualEncoder:
    model = create_dual_encoder(model_type, load_bert(folder), outputs, poly_first_m=5, colbert_dim=6, seed=1)
    model.lengths = LENGTHS
    model.eval()
    return model


def sentences(count: int, longest: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(FILLERS + NOUNS, rng.integers(1, longest))) for _ in range(count)]


def direct(model: DualEncoder, wordpiece: WordPiece, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Logits of pairs laid out as in training."""
    rows = Rows([a for a, _ in pairs], [b for _, b in pairs], None, "here")
    batch = PairLayout(*LENGTHS).encode(wordpiece, rows).pad(np.arange(len(pairs)))
    with paddle.no_grad():
        return model({name: paddle.to_tensor(value) for name, value in batch.items()}).numpy()


def stored(model: DualEncoder, wordpiece: WordPiece, documents: list[str], folder: Path) -> DocumentStore:
    writer = StoreWriter(folder, {"model": "digest", "width": model.state_width})
    encoded = wordpiece.encode(documents, None, LENGTHS[1])
    batch = tower_inputs(encoded, np.arange(len(documents)), LENGTHS[1], wordpiece.pad_id)
    with paddle.no_grad():
        states = model.document_states(*(paddle.to_tensor(batch[name]) for name in ("input_ids", "mask", "positions")))
    kept = [x[: model.document_vectors(n)] for x, n in zip(states.numpy(), encoded.lengths, strict=True)]
    writer.add([f"d{i}" for i in range(len(documents))], kept)
    writer.finish()
    return DocumentStore(folder)


def scored(ranker, queries, documents):
    """Logits [queries, documents, C]."""
    found = [
        ranking.logits[np.argsort(ranking.documents)]
        for ranking in ranker.rank(queries, 99, [documents] * len(queries))
    ]
    return np.stack(found)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_stored_documents_score_as_their_pairs_do(folder, tmp_path, model_type, monkeypatch):
    """To 1e-3, through float16, whatever is compared at a time; queries and documents longer than the model's too."""
    model, wordpiece = create(folder, model_type), WordPiece.from_folder(folder)
    queries, documents = sentences(3, 12, 0), sentences(20, 24, 1)
    ranker = Ranker(model, wordpiece, stored(model, wordpiece, documents, tmp_path / "store"), "digest", "here")
    expected = direct(model, wordpiece, [(q, d) for q in queries for d in documents]).reshape(3, 20, 3)
    assert np.ptp(expected, axis=1).min() > 1e-2  # the documents differ
    np.testing.assert_allclose(scored(ranker, queries, np.arange(20)), expected, atol=1e-3)
    monkeypatch.setattr(document_store, "_VECTORS", 30)
    monkeypatch.setattr(document_store, "_WINDOW", 7)
    np.testing.assert_allclose(scored(ranker, queries[:2], np.arange(1, 20, 2)), expected[:2, 1::2], atol=1e-3)


@pytest.mark.parametrize("outputs", [1, 3])
def test_ranking_sorts_all_scores(folder, tmp_path, outputs, monkeypatch):
    model, wordpiece = create(folder, "late_fusion", outputs), WordPiece.from_folder(folder)
    queries, documents = sentences(5, 8, 0), sentences(20, 16, 1)
    ranker = Ranker(model, wordpiece, stored(model, wordpiece, documents, tmp_path / "store"), "digest", "here")
    scores = scored(ranker, queries, np.arange(20))
    monkeypatch.setattr(document_store, "_VECTORS", 40)
    monkeypatch.setattr(document_store, "_QUERIES", 2)
    for label in (0, -1):
        by_score = [np.argsort(-relevance(of_query, label), kind="stable") for of_query in scores]
        for k in (1, 6, 50):
            rankings = list(ranker.rank(queries, k, label=label))
            assert [x.documents.tolist() for x in rankings] == [order[:k].tolist() for order in by_score]
        np.testing.assert_allclose(rankings[1].logits, scores[1][by_score[1]], atol=1e-5)
        chosen = [np.array([4, 9, 4, 2]), np.array([0]), np.array([], np.int64), np.arange(20), np.array([7, 3])]
        rankings = list(ranker.rank(queries, 50, chosen, label))
        expected = [[d for d in order if d in of] for order, of in zip(by_score, chosen, strict=True)]
        assert [x.documents.tolist() for x in rankings] == expected
    model.classifier[1].weight.set_value(paddle.zeros_like(model.classifier[1].weight))
    (ranking,) = ranker.rank(queries[:1], 4)  # of equal ones the first in the store
    assert ranking.documents.tolist() == [0, 1, 2, 3]


def test_relevance_is_the_log_odds():
    logits = np.log(np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], np.float32))
    np.testing.assert_allclose(relevance(logits, 2), np.log([1.0, 0.1 / 0.9]), atol=1e-6)
    np.testing.assert_allclose(relevance(logits, -1), relevance(logits, 2))
    assert relevance(np.array([[3.5], [-1.0]], np.float32), -1).tolist() == [3.5, -1.0]


def test_a_store_of_another_model_is_refused(folder, tmp_path):
    model, wordpiece = create(folder, "sbert"), WordPiece.from_folder(folder)
    store = stored(model, wordpiece, sentences(2, 9, 0), tmp_path / "store")
    with pytest.raises(UserError, match="was made by another model than here"):
        Ranker(model, wordpiece, store, "another", "here")


def test_a_joint_layer_counts_the_query_among_what_is_compared_at_a_time(folder, tmp_path, monkeypatch):
    """One document of 4 tokens stands beside all tokens of the query."""
    wordpiece, sizes = WordPiece.from_folder(folder), {}
    monkeypatch.setattr(document_store, "_VECTORS", 64)
    for model_type in ("deformer", "late_fusion"):
        model = create(folder, model_type)
        store = stored(model, wordpiece, ["one two"] * 16, tmp_path / model_type)
        ranker = Ranker(model, wordpiece, store, "digest", "here")
        score, sizes[model_type] = model.score, []
        monkeypatch.setattr(model, "score", lambda *x, s=score, n=sizes[model_type]: (n.append(len(x[2])), s(*x))[1])
        next(ranker.rank(sentences(1, 12, 0), 1))
    vectors = int(store.lengths[0])
    assert max(sizes["late_fusion"]) == 64 // vectors > max(sizes["deformer"]) >= 1
