"""Scores of sentence vectors against scipy, NumPy and numbers worked out by hand; and the report's files."""

import csv
import json

import numpy as np
import paddle
import pytest
from scipy import stats

from distill.data.parallel import Parallel
from distill.data.readers import Rows
from distill.errors import UserError
from distill.evaluation import sentences
from distill.evaluation.latency import Latency
from distill.evaluation.sentences import (
    pair_vectors,
    report,
    save_heat_map,
    sts_scores,
    translation_accuracy,
    translation_scores,
    vector_mse,
)


class Encoder:
    """Vectors by a table, or drawn from the text; counts what it is asked."""

    def __init__(self, table=None, dim=6):
        self.table, self.dim, self.asked = table, dim, []

    def __call__(self, texts):
        self.asked += texts
        if self.table is not None:
            return np.float32([self.table[text] for text in texts])
        return np.float32([np.random.default_rng([ord(c) for c in text]).normal(size=self.dim) for text in texts])


def pairs(n, seed=0, prefix="a", labels=None):
    rng = np.random.default_rng(seed)
    scores = np.float32(rng.integers(0, 11, n) / 2) if labels is None else np.float32(labels)
    return Rows([f"{prefix}{i}" for i in range(n)], [f"{prefix}{i + 1}" for i in range(n)], scores, "pairs.csv")


# Likeness


def test_sts_is_the_correlation_of_the_cosine():
    sets, encoder = {"en-en": pairs(40), "en-de": pairs(30, 1, "b")}, Encoder()
    found = sts_scores(encoder, sets)
    assert sorted(encoder.asked) == sorted({*sets["en-en"].text_a, *sets["en-en"].text_b, *sets["en-de"].text_a, "b30"})
    expected = {}
    for name, rows in sets.items():
        a, b = (Encoder()(texts).astype(np.float64) for texts in (rows.text_a, rows.text_b))
        cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
        expected[name] = (stats.pearsonr(cosine, rows.labels)[0], stats.spearmanr(cosine, rows.labels)[0])
        assert tuple(found[name].values()) == pytest.approx(expected[name], abs=1e-12)
        assert list(found[name]) == ["pearson", "spearman"]
    assert list(found) == ["en-en", "en-de", "mean"]
    assert tuple(found["mean"].values()) == pytest.approx(np.mean(list(expected.values()), axis=0), abs=1e-12)


def test_sts_by_hand():
    """Cosines 1, 0 and -1 with the scores 5, 2 and 1; lengths do not matter."""
    table = {"x": [3, 0], "same": [9, 0], "across": [0, 0.1], "against": [-1e-3, 0]}
    rows = Rows(["x", "x", "x"], ["same", "across", "against"], np.float32([5, 2, 1]), "hand")
    found = sts_scores(Encoder(table), {"en-en": rows})["en-en"]
    assert found["spearman"] == pytest.approx(1.0)
    assert found["pearson"] == pytest.approx(4 / np.sqrt(2 * 26 / 3))  # deviations 1, 0, -1 and 7/3, -2/3, -5/3
    flipped = Rows(rows.text_a, rows.text_b, np.float32([1, 2, 5]), "hand")
    assert sts_scores(Encoder(table), {"en-en": flipped})["en-en"]["spearman"] == pytest.approx(-1.0)


def test_collapsed_and_broken_vectors():
    rows = pairs(5)
    alike = Encoder({text: [1.0, 2.0] for text in {*rows.text_a, *rows.text_b}})
    assert sts_scores(alike, {"en-en": rows})["mean"] == {"pearson": 0.0, "spearman": 0.0}
    broken = Encoder({text: [1.0, np.nan] for text in {*rows.text_a, *rows.text_b}})
    with pytest.raises(UserError, match="6 of 6 sentence vectors are not finite numbers"):
        sts_scores(broken, {"en-en": rows})
    with pytest.raises(ValueError, match="no pairs"):
        sts_scores(alike, {})
    with pytest.raises(ValueError, match="one.txt: pairs of sentences with scores are needed"):
        sts_scores(alike, {"en-en": Rows(["a"], None, None, "one.txt")})


# Translations


def test_translation_by_hand():
    """(0.9, 0.1) is nearest to (2, 0), but (1, 1) is nearest to it: cosines 0.707, 0.707 and 0.781."""
    source = np.float32([[1, 0], [0, 1], [0.9, 0.1]])
    target = np.float32([[2, 0], [0, 5], [1, 1]])
    found = translation_accuracy(source, target)
    assert found == {"source_to_target": 2 / 3, "target_to_source": 1.0, "mean": pytest.approx(5 / 6)}


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_translation_in_blocks_is_that_of_the_whole_matrix(monkeypatch, block):
    monkeypatch.setattr(sentences, "_BLOCK", block)
    rng = np.random.default_rng(0)
    source = rng.normal(size=(50, 5)).astype(np.float32)
    target = source + rng.normal(size=source.shape).astype(np.float32)
    a, b = (
        x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (source, target)
    )
    matrix, own = a @ b.T, np.arange(50)
    forth, back = (matrix.argmax(1) == own).mean(), (matrix.argmax(0) == own).mean()
    assert forth != back
    found = translation_accuracy(source, target)
    assert found == {"source_to_target": forth, "target_to_source": back, "mean": pytest.approx((forth + back) / 2)}
    turned = translation_accuracy(target, source)
    assert (turned["source_to_target"], turned["target_to_source"]) == (back, forth)
    order = rng.permutation(50)
    assert translation_accuracy(source[order] * 3, target[order]) == found


def test_vectors_that_are_all_alike_find_nothing():
    alike = np.ones((40, 3), np.float32)
    assert translation_accuracy(alike, alike)["mean"] == pytest.approx(1 / 40)
    assert translation_accuracy(0 * alike, alike)["mean"] == pytest.approx(1 / 40)
    with pytest.raises(ValueError, match="vectors of n sentences and n translations"):
        translation_accuracy(alike, alike[:3])
    with pytest.raises(UserError, match="1 of 40 sentence vectors are not finite"):
        translation_accuracy(np.where(np.arange(40)[:, None] == 3, np.inf, alike), alike)


def test_translations_by_language():
    rows = Parallel(["a", "b", "b", "c", "a", "b"], ["u", "v", "w", "v", "u", "x"], [*["de"] * 4, *["fr"] * 2], ("f",))
    table = {"a": [1, 0], "b": [0, 1], "c": [7, 7], "u": [1, 0], "v": [0, 1], "w": [7, 7], "x": [1, 0.1]}
    encoder = Encoder(table)
    source, target = pair_vectors(encoder, rows)
    assert sorted(encoder.asked) == sorted(table)  # each once
    np.testing.assert_array_equal(source[:3], [[1, 0], [0, 1], [0, 1]])
    found = translation_scores(source, target, rows)
    # Of de the rows 1 and 2 count: the third has the second's source, the fourth its target.
    assert found["en-de"] == {"source_to_target": 1.0, "target_to_source": 1.0, "mean": 1.0}
    assert found["en-fr"] == {"source_to_target": 1.0, "target_to_source": 0.5, "mean": 0.75}
    assert found["mean"] == {"source_to_target": 1.0, "target_to_source": 0.75, "mean": 0.875}


def test_mse_by_hand():
    assert vector_mse(np.float32([[1, 2], [3, 4]]), np.float32([[1, 0], [0, 4]])) == (0 + 4 + 9 + 0) / 4
    with pytest.raises(ValueError, match="cannot be compared"):
        vector_mse(np.zeros((2, 3)), np.zeros((2, 1)))


# The report


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """report(...) without the clock; weights of 16 bytes."""

    def once(call, rows):
        assert call([rows[0], rows[-1]]).shape[0] == 2
        return Latency({"p50": 1.0, "p95": 2.0, "p99": 3.0, "mean": 1.5}, 2, 4.0)

    monkeypatch.setattr(sentences, "measure", once)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(16))

    def made(sts, parallel=None, teacher=None, encoder=None):
        folder = tmp_path / "results"
        model = paddle.nn.Linear(3, 2)
        returned = report(folder, "dev", encoder or Encoder(), sts, parallel, teacher, model, weights, 64, 7)
        assert json.loads((folder / "results_eval.json").read_text()) == returned
        return returned, folder

    return made


def test_report(reported, capsys):
    sts = {name: pairs(20, i, name) for i, name in enumerate(("en-en", "en-de", "de-de"))}
    rows = Parallel(["a", "b", "c"], ["u", "v", "w"], ["de", "de", "fr"], ("f",))
    teacher = Encoder()(["a", "b", "x"])
    result, folder = reported(sts, rows, teacher)
    assert sorted(path.name for path in folder.iterdir()) == ["results_eval.csv", "results_eval.json", "spearman.png"]
    scores = sts_scores(Encoder(), sts)
    assert result["sts"] == {name: scores[name] for name in sts}
    assert (result["metric"], result["spearman"]) == ("spearman", scores["mean"]["spearman"])
    source, target = pair_vectors(Encoder(), rows)
    found = translation_scores(source, target, rows)
    assert result["translation"] == {name: found[name] for name in ("en-de", "en-fr")}
    assert result["translation_accuracy"] == found["mean"]["mean"]
    assert result["mse"]["en"] == pytest.approx(np.mean((source[2] - teacher[2]) ** 2) / 3, rel=1e-6)
    assert result["mse"]["en-de"] == pytest.approx(np.mean((target[:2] - teacher[:2]) ** 2), rel=1e-6)
    facts = {"parameters": 8, "bytes": 16, "samples_per_second": 4.0, "batch_size": 64, "rows": 60, "seed": 7}
    assert {name: result[name] for name in facts} == facts
    assert result["latency_ms"]["p50"] == 1.0 and result["command"].startswith("python ")
    assert "python" in result["versions"] and "cores" in result["hardware"]
    shown = f"dev: spearman {result['spearman']:.4f}  pearson {result['pearson']:.4f}  translation_accuracy "
    assert capsys.readouterr().out.startswith(shown)

    table = {row["pair"]: row for row in csv.DictReader((folder / "results_eval.csv").open())}
    assert list(table) == ["en-en", "en-de", "de-de", "en-fr", "en"]
    assert float(table["en-de"]["spearman"]) == result["sts"]["en-de"]["spearman"]
    assert float(table["en-de"]["target_to_source"]) == result["translation"]["en-de"]["target_to_source"]
    assert (
        float(table["en"]["mse"]) == result["mse"]["en"] and table["en"]["pearson"] == table["en-fr"]["pearson"] == ""
    )


def test_report_of_pairs_alone(reported):
    result, folder = reported({"sts17": pairs(20)})
    assert "translation" not in result and "mse" not in result and "translation_accuracy" not in result
    assert sorted(path.name for path in folder.iterdir()) == ["results_eval.csv", "results_eval.json"]


def test_a_report_that_fails_leaves_the_former(reported, tmp_path):
    _, folder = reported({"en-en": pairs(20)})
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match="not finite"):
        reported({"en-en": pairs(20)}, encoder=lambda texts: np.full((len(texts), 2), np.nan))
    with pytest.raises(ValueError, match=r"vectors \(2, 6\) and the teacher's \(1, 6\)"):
        reported({"en-en": pairs(20)}, Parallel(["a", "b"], ["c", "d"], ["de"] * 2, ("f",)), np.zeros((1, 6)))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_heat_map(tmp_path, monkeypatch):
    from matplotlib import pyplot  # what follows must not need it, nor a screen
    from matplotlib.axes import Axes

    drawn, texts = [], []
    image, text = Axes.imshow, Axes.text
    monkeypatch.setattr(Axes, "imshow", lambda self, x, **more: (drawn.append(x), image(self, x, **more))[1])
    monkeypatch.setattr(Axes, "text", lambda self, *place, **more: (texts.append(place), text(self, *place, **more))[1])
    path = tmp_path / "map.png"
    save_heat_map(path, {"en-en": 0.8, "en-de": 0.61, "de-de": -0.2})
    assert path.read_bytes().startswith(b"\x89PNG") and not pyplot.get_fignums()
    np.testing.assert_array_equal(drawn, [[[0.8, 0.61], [np.nan, -0.2]]])
    assert texts == [(0, 0, "80.0"), (1, 0, "61.0"), (1, 1, "-20.0")]  # column, line
    first = path.read_bytes()
    save_heat_map(path, {"en-en": 0.8, "en-de": 0.61, "de-de": -0.2})
    assert path.read_bytes() == first and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="sts17: not a pair of languages"):
        save_heat_map(path, {"sts17": 0.8})
