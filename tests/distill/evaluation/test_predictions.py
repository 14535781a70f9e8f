import numpy as np
import pytest

from distill.errors import UserError
from distill.evaluation.predictions import NAME, Predictions, load_predictions, save_predictions


def test_what_is_written_is_read_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(50, 3)) * 10.0 ** rng.integers(-30, 30, (50, 3))).astype(np.float32)
    splits = {
        "dev_matched": Predictions(logits, rng.integers(-1, 3, 50)),
        "dev_mismatched": Predictions(logits[:7, ::-1], np.zeros(7, np.int64)),
    }
    save_predictions(tmp_path, splits)
    found = load_predictions(tmp_path)
    assert list(found) == list(splits)
    for name, split in splits.items():
        np.testing.assert_array_equal(found[name].logits, split.logits)
        np.testing.assert_array_equal(found[name].labels, split.labels)
        assert found[name].logits.dtype == np.float32
    first = (tmp_path / NAME).read_text().splitlines()[:2]
    assert first[0] == "split\trow\tlabel\tlogit_0\tlogit_1\tlogit_2"
    assert first[1].split("\t")[:3] == ["dev_matched", "1", str(splits["dev_matched"].labels[0])]


def test_scores_and_rows_without_one(tmp_path):
    labels = np.array([2.5, np.nan, 0.2], np.float32)
    save_predictions(tmp_path, {"dev": Predictions(np.ones((3, 1), np.float32), labels)})
    np.testing.assert_allclose(load_predictions(tmp_path)["dev"].labels, labels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("split\trow\tlabel\tlogit_0\ndev\t1\t0\tmany\n", ":2: not a number"),
        ("split\trow\tlabel\tlogit_0\ndev\t1\t0\t1.5\ndev\t2\t0\n", ":3: 3 columns, its head has 4"),
        ("split\trow\n", "no rows in it"),
        ("", "no rows in it"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_files_that_are_none(text, expected, tmp_path):
    (tmp_path / NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=expected):
        load_predictions(tmp_path)
