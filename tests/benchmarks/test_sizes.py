"""The published architectures have the known numbers of parameters, and the table is made of what was timed."""

import json
import sys

import paddle
import pytest

from benchmarks import sizes
from tests.recipes.runs import no_clock


@pytest.mark.parametrize(
    ("label", "millions"),
    [("BERT-base", 109.48), ("KD, TinyBERT", 14.35), ("BERT-PKD, BERT-of-Theseus", 45.69)],
)
def test_parameters_without_the_head(label, millions, monkeypatch):
    (shape,) = [shape for name, shape in sizes.BERTS.items() if name.split(" (")[0] == label]
    # The shapes alone, without memory: PaddleNLP would draw the weights after all.
    monkeypatch.setattr("paddlenlp.transformers.bert.modeling.BertPretrainedModel._init_weights", lambda *_: None)
    with paddle.LazyGuard():
        bert = sizes.make_bert(*shape)
    assert round(sizes.parameters(bert) / 1e6, 2) == millions
    assert sizes.parameters(bert) == sum(int(p.size) for p in bert.bert.parameters())


def test_parameters_of_the_bilstm():
    """10,002 words of 300; two directions of 4 gates with two biases each; 600 to 300."""
    expected = 10_002 * 300 + 2 * 4 * 300 * (300 + 300 + 2) + 600 * 300 + 300
    assert sizes.parameters(sizes.make_bilstm()) == expected


def test_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sizes, "BERTS", {"large": (2, 16, 32, 4), "small": (1, 8, 16, 4)})
    monkeypatch.setattr(sizes, "LSTM_VOCABULARY", 50)
    monkeypatch.setattr(sizes, "LENGTH", 8)
    monkeypatch.setattr("benchmarks.common.ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks/sizes.py", "--rows", "6", "--batch_size", "4", "--rounds", "1"])
    no_clock(monkeypatch)
    sizes.main()
    written = json.loads((tmp_path / "results" / "benchmark_sizes.json").read_text())
    assert [row["layers"] for row in written["models"]] == [2, 1, 1] and written["timed"]["rows"] == 6
    lines = capsys.readouterr().out.splitlines()[-7:]
    assert lines[0] == "| model | layers | hidden | feed-forward | parameters | time | ms a text |"
    assert lines[2].startswith("| large | 2 | 16 | 32 | ") and "(1×)" in lines[2]
    assert "random ids, 8 tokens a row (32 for the BiLSTM), 6 rows in batches of 4" in lines[6]
