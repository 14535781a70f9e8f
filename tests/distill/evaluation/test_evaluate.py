import json

import numpy as np
import paddle
import pytest
from paddlenlp.transformers import BertForSequenceClassification

from distill.data.tasks import get_task
from distill.data.wordpiece import Encoded
from distill.encoders import inference
from distill.evaluation import evaluate
from distill.evaluation.evaluate import bert_forward, evaluate_splits, evaluating, predict, write_results
from distill.evaluation.latency import Latency
from tests.tiny import make_bert_folder

LENGTHS = [5, 30, 2, 9, 17, 9, 3, 30, 12, 4, 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(folder):
    model = BertForSequenceClassification.from_pretrained(str(folder))
    model.eval()
    return model


@pytest.fixture
def encoded():
    rng = np.random.default_rng(0)
    types = [[0] * (n // 2) + [1] * (n - n // 2) for n in LENGTHS]
    return Encoded.from_rows([rng.integers(5, 100, n) for n in LENGTHS], types)


def test_logits_come_in_row_order(model, encoded):
    logits = predict(bert_forward(model), encoded, 4)
    assert logits.shape == (11, 2) and logits.dtype == np.float32
    for i, length in enumerate(LENGTHS):
        types = [[0] * (length // 2) + [1] * (length - length // 2)]
        one = model(paddle.to_tensor(encoded.row(i)[None].astype("int64")), paddle.to_tensor(types))
        np.testing.assert_allclose(logits[i], one.numpy()[0], atol=1e-5)


def test_the_batch_size_changes_nothing(model, encoded):
    alone = predict(bert_forward(model), encoded, 1)
    assert len(np.unique(alone[:, 0])) == 11
    for batch_size in (2, 3, 11, 64):
        np.testing.assert_allclose(predict(bert_forward(model), encoded, batch_size), alone, atol=1e-5)


def test_many_rows_are_read_by_a_graph_with_the_same_logits(model, encoded, monkeypatch):
    """And the rows alone decide it, no clock: a run that is continued gets the same bits."""
    expected, graphs = predict(bert_forward(model), encoded, 4), []
    compiled = inference.compiled
    monkeypatch.setattr(inference, "compiled", lambda *given: graphs.append(given) or compiled(*given))
    monkeypatch.setattr(inference, "faster", None)
    monkeypatch.setattr(inference, "available", lambda: True)
    for tokens, made in ((int(encoded.lengths.sum()) + 1, 0), (int(encoded.lengths.sum()), 1)):
        monkeypatch.setattr(evaluate, "_MANY_TOKENS", tokens)
        np.testing.assert_allclose(predict(bert_forward(model), encoded, 4), expected, atol=1e-5)
        assert len(graphs) == made
    weight = model.classifier.weight.numpy()
    model.classifier.weight.set_value(2 * weight)
    doubled = predict(bert_forward(model), encoded, 4)
    model.classifier.weight.set_value(weight)
    np.testing.assert_allclose(
        doubled - model.classifier.bias.numpy(), 2 * (expected - model.classifier.bias.numpy()), atol=1e-4
    )


def test_the_order_of_rows_changes_nothing(model, encoded):
    shuffled = np.random.default_rng(1).permutation(11)
    expected = predict(bert_forward(model), encoded, 4)[shuffled]
    np.testing.assert_allclose(predict(bert_forward(model), encoded.take(shuffled), 4), expected, atol=1e-5)


def test_any_forward_gets_batches_of_similar_length(encoded):
    seen = []

    def forward(batch):
        seen.append(batch)
        assert not paddle.is_grad_enabled()
        return batch["lengths"].unsqueeze(1).astype("float16")

    logits = predict(forward, encoded, 4, pad_id=99)
    np.testing.assert_array_equal(logits[:, 0], LENGTHS)
    assert logits.dtype == np.float32
    assert [x["input_ids"].shape for x in seen] == [[4, 5], [4, 12], [3, 30]]
    assert set(seen[0]) == {"input_ids", "token_type_ids", "mask", "lengths"}
    first = seen[0]
    np.testing.assert_array_equal((first["input_ids"] == 99).numpy(), first["mask"].numpy() == 0)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows to predict"):
        predict(lambda batch: batch["mask"], Encoded.from_rows([]), 4)


def test_evaluating_switches_dropout_off_and_everything_back(folder, encoded):
    model = BertForSequenceClassification.from_pretrained(str(folder))
    model.train()
    model.bert.pooler.eval()  # as in a run that freezes a part
    batch = {name: paddle.to_tensor(value) for name, value in encoded.pad(np.arange(4)).items()}
    forward = lambda: bert_forward(model)(batch).numpy()  # noqa: E731
    assert np.abs(forward() - forward()).max() > 0
    with pytest.raises(ZeroDivisionError), evaluating(model):
        np.testing.assert_array_equal(forward(), forward())
        assert not paddle.is_grad_enabled()
        raise ZeroDivisionError
    assert model.training and model.bert.embeddings.dropout.training and not model.bert.pooler.training
    assert paddle.is_grad_enabled()


def test_a_bert_is_predicted_with_in_eval_mode(folder, encoded):
    model = BertForSequenceClassification.from_pretrained(str(folder))
    model.train()
    np.testing.assert_array_equal(*(predict(bert_forward(model), encoded, 4) for _ in range(2)))
    assert model.training


def test_further_dev_splits_have_an_ending():
    labels = np.array([0, 1, 2])
    splits = {"dev_matched": (np.eye(3), labels), "dev_mismatched": (np.eye(3)[[0, 1, 1]], labels)}
    found = evaluate_splits(lambda rows: rows, splits, get_task("MNLI"))
    assert found["accuracy"] == 1.0 and found["accuracy_mismatched"] == pytest.approx(2 / 3)
    assert {name for name in found if "mismatched" not in name} == {"accuracy", "MCC", "precision", "recall", "f_1"}
    assert len(found) == 10


LATENCY = Latency({"p50": 1.0, "p95": 2.0, "p99": 3.0, "mean": 1.25}, 200, 1234.5678)


def write(path, folder, model, metrics, metric):
    return write_results(path, metrics, metric, model, folder / "model.safetensors", LATENCY, 872, 128, 42)


def test_result_file_holds_the_original_and_the_unambiguous_keys(tmp_path, folder, model):
    metrics = {"accuracy": 0.9, "MCC": 0.8, "precision": 0.7, "recall": 0.6, "f_1": 0.65}
    written = write(tmp_path / "run" / "results_eval.json", folder, model, metrics, "accuracy")
    read = json.loads((tmp_path / "run" / "results_eval.json").read_text())
    assert read == written
    size = (folder / "model.safetensors").stat().st_size
    head = ["accuracy", "MCC", "precision", "recall", "f_1", "modelSize", "reasoningTime"]
    assert list(read)[:7] == head and read["reasoningTime"] == 1234.57
    assert read["modelSize"] == f"{size / 1e6:.2f} MB" and read["bytes"] == size
    # 106 + 64 + 2 embeddings and 2 norm vectors, three layers, pooler, classifier; hidden 32, feed-forward 64
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 4 * 32
    assert read["parameters"] == (106 + 64 + 2 + 2) * 32 + 3 * layer + (32 * 32 + 32) + (32 * 2 + 2)
    assert read["latency_ms"] == {"p50": 1.0, "p95": 2.0, "p99": 3.0, "mean": 1.25}
    rest = (read["metric"], read["rows"], read["batch_size"], read["seed"], read["samples_per_second"])
    assert rest == ("accuracy", 872, 128, 42, 1234.5678)
    assert read["hardware"]["cores"] >= 1 and "paddlenlp" in read["versions"]
    assert [x.name for x in (tmp_path / "run").iterdir()] == ["results_eval.json"]


def test_regression_has_no_accuracy(tmp_path, folder, model):
    metrics = {"pearson": 0.5, "spearman": 0.25, "pearson_spearman": 0.375}
    read = write(tmp_path / "results_eval.json", folder, model, metrics, "pearson_spearman")
    assert read["accuracy"] is read["MCC"] is read["f_1"] is None
    assert (read["pearson"], read[read["metric"]]) == (0.5, 0.375)


def test_a_result_that_cannot_be_written_leaves_the_former_one(tmp_path, folder, model):
    path = tmp_path / "results_eval.json"
    path.write_text("former")
    with pytest.raises(ValueError):
        write(path, folder, model, {"accuracy": float("nan")}, "accuracy")
    assert path.read_text() == "former" and [x.name for x in tmp_path.iterdir()] == ["results_eval.json"]
