import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from distill.data.tasks import get_task
from distill.errors import UserError
from distill.evaluation.metrics import classification, regression, score

# A constant prediction, or a class that does not occur, must not even warn.
pytestmark = pytest.mark.filterwarnings("error")

SST2, MNLI, STSB = get_task("SST-2"), get_task("MNLI"), get_task("STS-B")


def logits_for(predicted, classes=2):
    return np.eye(classes, dtype=np.float32)[predicted]


def test_binary_scores_by_hand():
    # tp 2, fn 1, fp 1, tn 4
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    found = classification(logits_for([1, 1, 0, 1, 0, 0, 0, 0]), labels, SST2)
    assert list(found) == ["accuracy", "MCC", "precision", "recall", "f_1"]
    assert found == pytest.approx(
        {"accuracy": 6 / 8, "MCC": (2 * 4 - 1 * 1) / 15, "precision": 2 / 3, "recall": 2 / 3, "f_1": 2 / 3}
    )
    assert all(type(value) is float for value in found.values())


def test_one_empty_confusion_cell_does_not_zero_the_mcc():
    # tp 2, fn 0, fp 1, tn 1: (2 * 1 - 1 * 0) / sqrt(3 * 2 * 2 * 1)
    found = classification(logits_for([1, 1, 1, 0]), np.array([1, 1, 0, 0]), get_task("CoLA"))
    assert found["MCC"] == pytest.approx(1 / np.sqrt(3))
    perfect = classification(logits_for([1, 1, 0, 0]), np.array([1, 1, 0, 0]), get_task("CoLA"))
    assert perfect["MCC"] == perfect["f_1"] == 1.0


@pytest.mark.parametrize("name", ["MRPC", "QQP"])
def test_paraphrase_tasks_report_accuracy_and_f1_of_class_1(name):
    found = classification(logits_for([1, 0, 1, 1]), np.array([1, 1, 1, 0]), get_task(name))
    assert (found["accuracy"], found["f_1"]) == (0.5, pytest.approx(2 / 3))


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions(constant):
    labels = np.array([0, 1, 1, 0, 1])
    found = classification(logits_for([constant] * 5), labels, SST2)
    assert found["accuracy"] == (0.4, 0.6)[constant] and found["MCC"] == 0.0
    assert found["recall"] == float(constant)
    alone = classification(logits_for([constant] * 3), np.array([constant] * 3), SST2)
    assert alone["accuracy"] == 1.0 and alone["MCC"] == 0.0 and alone["f_1"] == float(constant)


def test_three_classes_average_over_the_classes():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(300, 3)), rng.integers(0, 3, 300)
    found, predicted = classification(logits, labels, MNLI), logits.argmax(1)
    assert found == pytest.approx(
        {
            "accuracy": (labels == predicted).mean(),
            "MCC": sk.matthews_corrcoef(labels, predicted),
            "precision": np.mean([(labels[predicted == c] == c).mean() for c in range(3)]),
            "recall": np.mean([(predicted[labels == c] == c).mean() for c in range(3)]),
            "f_1": sk.f1_score(labels, predicted, average="macro"),
        }
    )


def test_rows_without_a_label_are_left_out():
    labels = np.array([1, -1, 0, -1])
    assert classification(logits_for([1, 0, 0, 1]), labels, SST2)["accuracy"] == 1.0
    scores = np.array([1.0, np.nan, 2.0, 3.0], np.float32)
    assert regression(np.array([[1.0], [99.0], [2.0], [3.0]]), scores)["pearson"] == pytest.approx(1.0)


def test_correlations_with_ties_by_hand():
    # Ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5).
    found = regression(np.array([[0.0], [7.0], [7.0], [8.0]], np.float32), np.array([1.0, 3.0, 2.0, 4.0], np.float32))
    assert list(found) == ["pearson", "spearman", "pearson_spearman"]
    assert found["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    # Deviations -5.5, 1.5, 1.5, 2.5 and -1.5, 0.5, -0.5, 1.5: 12 / sqrt(41 * 5).
    assert found["pearson"] == pytest.approx(12 / np.sqrt(41 * 5))
    assert found["pearson_spearman"] == pytest.approx((found["pearson"] + found["spearman"]) / 2)


def test_correlations_against_scipy():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=500).astype(np.float32), rng.integers(0, 26, 500) / 5
    y[:300] += x[:300]
    found = regression(x[:, None], y)
    assert found["pearson"] == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-6)
    assert found["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


@pytest.mark.parametrize("predictions", [np.full((4, 1), 2.5), np.zeros(4)])
def test_constant_predictions_have_no_correlation(predictions):
    assert regression(predictions, np.array([0.0, 1.0, 2.0, 3.0])) == dict.fromkeys(
        ("pearson", "spearman", "pearson_spearman"), 0.0
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_predictions_that_are_not_finite_are_refused(bad):
    logits = logits_for([0, 1, 1, 0])
    logits[2, 0] = bad
    with pytest.raises(
        UserError, match=r"1 of 4 predictions are not finite numbers \(first: data row 3\).*--learning_rate"
    ):
        classification(logits, np.array([0, 1, -1, 0]), SST2)
    with pytest.raises(UserError, match="data row 2"):
        regression(np.array([1.0, bad, 2.0]), np.array([1.0, 2.0, 3.0]))


def test_a_split_without_labels_is_refused():
    with pytest.raises(UserError, match="no row has a label"):
        classification(logits_for([0, 1]), np.array([-1, -1]), SST2)
    with pytest.raises(UserError, match="no row has a label"):
        regression(np.array([1.0, 2.0]), np.array([np.nan, np.nan]))


def test_predictions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"MNLI has 3 labels, the logits are \(2, 2\)"):
        classification(logits_for([0, 1]), np.array([0, 1]), MNLI)
    with pytest.raises(ValueError, match="2 predictions for 3 labels"):
        classification(logits_for([0, 1]), np.array([0, 1, 1]), SST2)
    with pytest.raises(ValueError, match="one prediction a row"):
        regression(np.zeros((3, 2)), np.zeros(3))


def test_score_follows_the_task():
    assert score(logits_for([0, 1]), np.array([0, 1]), SST2)["accuracy"] == 1.0
    assert score(np.array([[0.0], [1.0]]), np.array([1.0, 2.0]), STSB)["pearson"] == pytest.approx(1.0)
