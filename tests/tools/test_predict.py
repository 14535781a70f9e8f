"""Folders of teachers and students as one call, and what predict.py and evaluate.py print of them."""

import json

import numpy as np
import pytest
from scipy.special import softmax

from distill.data.wordpiece import WordPiece
from distill.data.words import WordVocab
from distill.errors import UserError
from models import bilstm
from models.predictor import open_folder
from tests.tiny import make_bert_folder, make_glue_data
from tools import evaluate, predict

TEXTS = ["a good film", "the plot was dull and weak ."]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return make_bert_folder(tmp_path_factory.mktemp("models") / "bert", ("neg", "pos"), layers=1)


def make_student(folder, labels=("0", "1"), pair=False, vocabulary=None):
    size, reads = len(vocabulary.tokens), "wordpieces" if isinstance(vocabulary, WordPiece) else "words"
    config = bilstm.BiLSTMConfig(size, labels, pair, 4, 3, max_length=16, reads=reads)
    model, reader = bilstm.create(config, 0), bilstm.Reader(vocabulary, "en", 16)
    model.classifier.weight.set_value(10 * model.classifier.weight)
    bilstm.save_student(folder, model, reader)
    return model, reader


@pytest.mark.parametrize("reads", ["wordpieces", "words"])
def test_a_student_classifies(reads, bert, tmp_path, capsys):
    vocabulary = WordPiece.from_folder(bert) if reads == "wordpieces" else WordVocab(["film", "good", "dull"])
    model, reader = make_student(tmp_path / "student", ("bad", "good"), vocabulary=vocabulary)
    shares = softmax(bilstm.predict(model, reader.texts(TEXTS), 2).astype(np.float64), axis=1)
    predict.main([str(tmp_path / "student"), *TEXTS])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [("bad", "good")[i] for i in shares.argmax(axis=1)]
    assert [float(line[1]) for line in lines] == pytest.approx(shares.max(axis=1), abs=6e-5)
    assert [line[2] for line in lines] == TEXTS


def test_a_teacher_classifies_texts_and_pairs(bert, capsys):
    from paddlenlp.transformers import BertForSequenceClassification

    predict.main([str(bert), TEXTS[0], "--device", "cpu"])
    assert capsys.readouterr().out.split("\t")[0] in ("neg", "pos")
    (line,) = predict.classify(str(bert), ["\t".join(TEXTS)])
    model = BertForSequenceClassification.from_pretrained(str(bert))
    model.eval()
    import paddle

    batch = WordPiece.from_folder(bert).encode(TEXTS[:1], TEXTS[1:], 64).pad([0])
    with paddle.no_grad():
        logits = model(paddle.to_tensor(batch["input_ids"]), paddle.to_tensor(batch["token_type_ids"])).numpy()
    share = softmax(logits.astype(np.float64))
    assert line == f"{('neg', 'pos')[share.argmax()]}\t{share.max():.4f}\t{TEXTS[0]}\t{TEXTS[1]}"


def test_a_text_longer_than_the_model_is_cut(bert):
    long = predict.classify(str(bert), ["good film " * 100, "good film " * 40])
    assert [line.split("\t")[:2] for line in long] == [long[0].split("\t")[:2]] * 2


def test_classes_without_names_are_called_by_their_numbers(tmp_path):
    folder = make_bert_folder(tmp_path, ("LABEL_0", "LABEL_1", "LABEL_2"), layers=1)
    assert open_folder(folder).labels == ("0", "1", "2")
    assert predict.classify(str(folder), TEXTS)[0].split("\t")[0] in "012"


def test_numbers_are_predicted_as_numbers(bert, tmp_path):
    folder = make_bert_folder(tmp_path / "bert", (), layers=1)
    student, reader = make_student(tmp_path / "student", (), pair=True, vocabulary=WordPiece.from_folder(bert))
    (line,) = predict.classify(str(folder), TEXTS[:1])
    value, text = line.split("\t")
    assert (
        float(value) == pytest.approx(open_folder(folder).logits(TEXTS[:1], None, 1)[0, 0], abs=6e-5)
        and text == TEXTS[0]
    )
    (line,) = predict.classify(str(tmp_path / "student"), ["a film\ta movie"])
    expected = bilstm.predict(student, reader.texts(["a film"], ["a movie"]), 1)[0, 0]
    assert line == f"{expected:.4f}\ta film\ta movie"


@pytest.mark.parametrize(
    ("pair", "texts", "expected"),
    [
        (False, ["a film\ta movie"], "one text without a TAB needed"),
        (True, ["a film"], "two texts with a TAB between needed"),
        (True, ["a film\ta movie", "a film\t "], "two texts with a TAB between needed"),
        (False, ["a film", " "], "one text without a TAB needed"),
    ],
)
def test_texts_that_do_not_fit_the_model(pair, texts, expected, bert, tmp_path):
    make_student(tmp_path, pair=pair, vocabulary=WordPiece.from_folder(bert))
    with pytest.raises(UserError) as error:
        predict.main([str(tmp_path), *texts])
    assert str(error.value) == f"{texts[-1]!r}: {expected}"


def test_refusals(tmp_path):
    for argv, expected in (
        ([], "give a folder"),
        ([str(tmp_path)], "give a folder"),
        ([str(tmp_path), "a"], "no weight file in it"),
    ):
        with pytest.raises(UserError, match=expected):
            predict.main(argv)
    (tmp_path / "config.json").write_text('{"model_type": "bilstm", "labels": [], "colour": 3}')
    with pytest.raises(UserError, match="config.json: not a BiLSTM's settings"):
        predict.main([str(tmp_path), "a"])


def test_evaluation_of_every_labelled_split(bert, tmp_path, capsys):
    make_student(tmp_path / "student", vocabulary=WordPiece.from_folder(bert))
    folder = make_glue_data(tmp_path / "data", "SST-2", rows=12) / "SST-2"
    header, *train = (folder / "train.tsv").read_text().splitlines()
    dev = (folder / "dev.tsv").read_text().splitlines()[1:]
    (folder / "dev.tsv").write_text("\n".join([header, *dev, *train[:4]]) + "\n")  # four dev rows are also in train
    (folder / "test.tsv").write_text("\n".join([header, *dev]) + "\n")
    found = evaluate.main([str(tmp_path / "student"), "--task_name", "SST-2", "--data_dir", str(tmp_path / "data")])
    assert json.loads((tmp_path / "student" / "evaluation.json").read_text()) == found
    assert (found["dev"]["rows"], found["dev"]["rows_not_in_train"]) == (10, 6)
    assert found["dev"]["scores_not_in_train"] == found["test"]["scores"]
    assert "scores_not_in_train" not in found["test"]  # all of them are
    assert "SST-2 dev, 6 rows that are not in train: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "pair", "expected"),
    [
        (("1", "0"), False, "its labels are 1, 0, those of SST-2 0, 1"),
        ((), False, "its labels are none .a number., those of SST-2 0, 1"),
        (("0", "1"), True, "reads two texts, rows of SST-2 have one text"),
    ],
)
def test_models_of_another_task_are_not_evaluated(labels, pair, expected, bert, tmp_path):
    make_student(tmp_path / "student", labels, pair, WordPiece.from_folder(bert))
    make_glue_data(tmp_path / "data", "SST-2", rows=4)
    with pytest.raises(UserError, match=expected):
        evaluate.main([str(tmp_path / "student"), "--data_dir", str(tmp_path / "data")])
    assert not (tmp_path / "student" / "evaluation.json").exists()
