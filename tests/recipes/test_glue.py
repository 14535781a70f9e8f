"""run_glue.py makes teachers: its best checkpoint is a folder that PaddleNLP opens, and the older commands too."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml

from distill.data.tasks import get_task, load_rows, load_task
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import find_model, load_bert
from distill.evaluation.evaluate import bert_forward, evaluating, predict
from distill.evaluation.predictions import load_predictions
from distill.options import TaskOptions
from glue import run_bert_finetune, run_glue
from tests.recipes.runs import glue, metrics, read, tree
from tests.tiny import MNLI, make_bert_folder

RUN_FILES = {"run.yaml", "run.json", "metrics.jsonl", "results_eval.json", "dev_predictions.tsv", "vdl"}
MODEL_FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer_config.json",
    "vocab.txt",
    "model_state.pdparams",
    "model_config.json",
}


def logits_of(model, wordpiece, rows):
    with evaluating(model):
        return predict(bert_forward(model), wordpiece.encode(rows.text_a, rows.text_b, 32), 64)


@pytest.mark.parametrize(
    ("task", "score", "least"),
    [("SST-2", "accuracy", 0.6), ("MRPC", "accuracy", 0.6), ("STS-B", "pearson_spearman", 0.3)],
)
def test_the_result_is_a_paddlenlp_folder_and_a_run(teachers, data_dir, task, score, least):
    from paddlenlp.transformers import BertForSequenceClassification, BertTokenizer

    folder = teachers(task)
    assert {path.name for path in folder.iterdir()} == RUN_FILES | MODEL_FILES
    options = TaskOptions(task_name=task, data_dir=str(data_dir), max_seq_length=32)
    rows = load_rows(options, load_task(options), "dev")
    theirs, tokenizer = (
        BertForSequenceClassification.from_pretrained(str(folder)),
        BertTokenizer.from_pretrained(str(folder)),
    )
    theirs.eval()
    batch = tokenizer(
        rows.text_a[:8],
        rows.text_b[:8] if rows.text_b else None,
        max_length=32,
        padding=True,
        return_attention_mask=True,
    )
    with paddle.no_grad():
        expected = theirs(**{name: paddle.to_tensor(np.array(value)) for name, value in batch.items()}).numpy()
    found = logits_of(load_bert(folder, expected.shape[1], head="stored"), WordPiece.from_folder(folder), rows)
    np.testing.assert_allclose(found[:8], expected, atol=1e-5)

    result, devs = read(folder / "results_eval.json"), [row["dev"] for row in metrics(folder) if "dev" in row]
    assert result[score] == max(dev[score] for dev in devs) >= least  # the best checkpoint, not the last
    keys = [
        "accuracy",
        "MCC",
        "precision",
        "recall",
        "f_1",
        "modelSize",
        "reasoningTime",
        "parameters",
        "bytes",
        "latency_ms",
        "rows",
        "hardware",
        "seed",
    ]
    assert set(keys) <= set(result) and result["rows"] == 48 and result["metric"] == score
    assert (result["accuracy"] is None) == (task == "STS-B")
    assert result["bytes"] == (folder / "model.safetensors").stat().st_size
    assert result["parameters"] == sum(p.size for p in theirs.parameters())


def test_the_older_names_hold_the_same_weights(teachers):
    folder = teachers("SST-2")
    old, new = load_bert(folder / "model_state.pdparams", 2, head="stored"), load_bert(folder, 2, head="stored")
    assert old.state_dict().keys() == new.state_dict().keys()
    for name, value in new.state_dict().items():
        np.testing.assert_array_equal(old.state_dict()[name], value)
    legacy = read(folder / "model_config.json")
    assert (
        legacy["init_class"] == "BertForSequenceClassification" and legacy["init_args"][0]["init_class"] == "BertModel"
    )


def test_a_folder_of_the_older_names_alone_is_a_teacher(teachers, tmp_path):
    for name in ("model_state.pdparams", "model_config.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((teachers("SST-2") / name).read_bytes())
    found = find_model(tmp_path / "model_state.pdparams")
    assert found.num_outputs == 2 and found.labels == ("0", "1")
    old = load_bert(tmp_path, 2, head="stored")
    np.testing.assert_array_equal(old.classifier.weight, load_bert(teachers("SST-2"), 2).classifier.weight)


def test_the_run_is_described(teachers, data_dir, encoder):
    from visualdl import LogReader

    folder = teachers("SST-2")
    settings, facts, lines = (
        yaml.safe_load((folder / "run.yaml").read_text()),
        read(folder / "run.json"),
        metrics(folder),
    )
    assert (
        settings["learning_rate"] == 3e-3
        and settings["data_dir"] == str(data_dir)
        and settings["model_name_or_path"] == str(encoder)
    )
    assert facts["finished"] and facts["task"] == "SST-2" and facts["train_rows"] == 96
    assert facts["steps"] == 6 * 12 and facts["rows"] == 6 * 96 and list(facts["samples_per_second"]) == list("123456")
    assert min(facts["samples_per_second"].values()) > 0 and 0.5 < facts["real_token_share"] <= 1
    assert {"teacher", "student", "data", "evaluation"} <= set(facts["seconds"]) and facts["peak_memory_bytes"] > 1e8
    assert facts["versions"]["paddlepaddle"] == paddle.__version__ and facts["hardware"]["cores"] >= 1
    assert [row["step"] for row in lines if "dev" in row] == [12, 24, 36, 48, 60, 72]
    assert all(row["losses"].keys() == {"label"} for row in lines if "losses" in row)
    assert not any(word in row for row in lines for word in ("time", "seconds", "date"))
    (log,) = (folder / "vdl").glob("*.log")
    reader = LogReader(file_path=str(log))
    assert {"loss/label", "train/loss", "train/lr", "dev/accuracy"} <= set(reader.get_tags()["scalar"])
    assert [point.id for point in reader.get_data("scalar", "dev/accuracy")] == [12, 24, 36, 48, 60, 72]


def test_a_finished_run_is_left_alone_by_its_own_command(teachers, data_dir, encoder, capsys, monkeypatch):
    folder = teachers("SST-2")
    before = tree(folder)
    monkeypatch.setattr("distill.training.fit.fit", None)
    assert run_glue.main(glue(data_dir, encoder, folder)) == folder
    assert "finished" in capsys.readouterr().out and tree(folder) == before


def test_predictions_are_a_submission(teacher, data_dir):
    argv = glue(data_dir, teacher, teacher, "SST-2", "--do_train=false", "--do_predict", "True")
    assert run_glue.main(argv) == teacher
    rows = load_rows(TaskOptions(task_name="SST-2", data_dir=str(data_dir)), load_task(TaskOptions()), "test")
    assert rows.labels is None
    expected = logits_of(load_bert(teacher, 2, head="stored"), WordPiece.from_folder(teacher), rows).argmax(axis=1)
    lines = (teacher / "SST-2.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{i}\t{label}" for i, label in enumerate(expected))] and set(expected) == {
        0,
        1,
    }


def test_predictions_can_be_asked_for_after_training(teacher, data_dir, encoder):
    before = tree(teacher)
    run_glue.main(glue(data_dir, encoder, teacher, "SST-2", "--do_predict", "true"))
    after = tree(teacher)
    assert len(after.pop(teacher / "SST-2.tsv").splitlines()) == 49 and after == before


def test_scores_are_predicted_within_the_benchmarks_range(teachers, data_dir, tmp_path):
    argv = glue(data_dir, teachers("STS-B"), tmp_path / "out", "STS-B", "--do_train", "no", "--do_predict", "yes")
    before = tree(teachers("STS-B"))
    run_glue.main(argv)
    assert tree(teachers("STS-B")) == before  # --output_dir takes what is written
    lines = (tmp_path / "out" / "STS-B.tsv").read_text().splitlines()[1:]
    scores = [float(line.split("\t")[1]) for line in lines]
    assert len(scores) == 48 and 0 <= min(scores) < max(scores) <= 5


def test_scores_of_any_scale_are_learned(encoder, data_dir, tmp_path):
    """The model starts at their mean: years are no harder than scores from 0 to 5."""
    for split in ("train", "dev"):
        rows = load_rows(TaskOptions(task_name="STS-B", data_dir=str(data_dir)), get_task("STS-B"), split)
        lines = [
            f"{a}\t{b}\t{1900 + 20 * s:.3f}" for a, b, s in zip(rows.text_a, rows.text_b, rows.labels, strict=True)
        ]
        (tmp_path / f"{split}.tsv").write_text("a\tb\tyear\n" + "\n".join(lines) + "\n")
    own = ("--train_file", tmp_path / "train.tsv", "--dev_file", tmp_path / "dev.tsv", "--regression", "true")
    own += ("--text_column", "a", "--text_pair_column", "b", "--label_column", "year")
    flags = ("--max_seq_length", 32, "--learning_rate", "3e-3", "--batch_size", 8, "--num_train_epochs", 1)
    argv = ["--model_name_or_path", encoder, "--output_dir", tmp_path / "run", *own, *flags]
    folder = run_glue.main([str(word) for word in argv])
    labels = np.loadtxt(tmp_path / "train.tsv", delimiter="\t", skiprows=1, usecols=2)
    found = load_predictions(folder)["dev"].logits
    assert abs(found.mean() - labels.mean()) < labels.std()


def test_predictions_of_a_teacher_leave_its_facts(teachers, data_dir, encoder, tmp_path):
    """Its length and seed are those of its training, whatever the defaults are."""
    flags = ("--max_seq_length", 8, "--max_steps", 1, "--seed", 7)
    folder = run_glue.main(glue(data_dir, encoder, tmp_path / "run", "SST-2", *flags))
    before = tree(folder)
    argv = ["--task_name", "SST-2", "--data_dir", data_dir, "--model_name_or_path", folder, "--do_train", "false"]
    run_glue.main([str(word) for word in (*argv, "--do_predict", "true")])
    after = tree(folder)
    assert after.pop(folder / "SST-2.tsv")
    assert read(folder / "results_eval.json")["seed"] == 7
    assert after[folder / "dev_predictions.tsv"] == before[folder / "dev_predictions.tsv"]


def test_how_many_rows_are_cut_is_said(encoder, data_dir, tmp_path, capsys):
    flags = ("--max_seq_length", 4, "--max_steps", 1)
    run_glue.main(glue(data_dir, encoder, tmp_path / "run", "SST-2", *flags))
    assert "96 of 96 training rows are longer than --max_seq_length 4 and are cut\n" in capsys.readouterr().out


def test_own_csv_with_string_labels(encoder, tmp_path):
    train = [
        f'"the {word}, film {i}",{label}'
        for i in range(12)
        for word, label in (("good", "up"), ("bad", "down"), ("plot", "level"))
    ]
    (tmp_path / "train.csv").write_text("\n".join(["review,stars", *train]) + "\n")
    (tmp_path / "dev.csv").write_text('stars,review\nup,"a good, film"\ndown,a bad film\n')
    (tmp_path / "test.csv").write_text("review,stars\na good film,-1\n")  # the label is kept secret
    own = [f"--{split}_file={tmp_path / split}.csv" for split in ("train", "dev", "test")]
    columns = ["--text_column", "review", "--label_column", "stars", "--do_predict", "true", "--num_train_epochs", "2"]
    folder = run_glue.main(glue(tmp_path, encoder, tmp_path / "run", "own", *own, *columns))
    assert read(folder / "config.json")["id2label"] == {"0": "down", "1": "level", "2": "up"}
    assert find_model(folder).labels == ("down", "level", "up")
    header, line = (folder / "own.tsv").read_text().splitlines()
    assert header == "index\tprediction" and line.split("\t")[1] in ("down", "level", "up")
    assert read(folder / "run.json")["task"] == "own"


def test_mnli_has_two_dev_and_two_test_sets(encoder, tmp_path):
    folder = tmp_path / "data" / "MNLI"
    folder.mkdir(parents=True)
    labels = ("neutral", "entailment", "contradiction")
    for name, rows in (
        ("train", 9),
        ("dev_matched", 6),
        ("dev_mismatched", 7),
        ("test_matched", 4),
        ("test_mismatched", 5),
    ):
        kind = name.partition("_")[0]
        lines = [MNLI[kind]]
        for i in range(rows):
            given = {"train": [labels[i % 3]] * 2, "dev": [labels[i % 3]] * 6, "test": []}[kind]
            lines.append(
                "\t".join([str(i), "1", "1n", "fiction", "(", "(", "(", "(", f"the plot {i}", f"a story {i}", *given])
            )
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    run = run_glue.main(glue(tmp_path / "data", encoder, tmp_path / "run", "mnli", "--do_predict", "true"))
    result, dev = read(run / "results_eval.json"), metrics(run)[-1]["dev"]
    assert {"accuracy", "accuracy_mismatched", "f_1_mismatched"} <= set(dev) and result["rows"] == 6
    # Six dev rows give sixths, the other seven give sevenths.
    assert (6 * dev["accuracy"]) % 1 == pytest.approx(0) and round(7 * dev["accuracy_mismatched"], 6).is_integer()
    assert read(run / "config.json")["id2label"] == {"0": "contradiction", "1": "entailment", "2": "neutral"}
    for name, rows in (("MNLI-m.tsv", 4), ("MNLI-mm.tsv", 5)):
        lines = (run / name).read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["index", *map(str, range(rows))]
        assert {line.split("\t")[1] for line in lines[1:]} <= set(labels)


def test_both_names_are_one_runner():
    assert run_bert_finetune.main is run_glue.main
    scripts = [Path(module.__file__) for module in (run_bert_finetune, run_glue)]
    help_of = [
        subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True).stdout
        for script in scripts
    ]
    assert help_of[0].split("options:")[1] == help_of[1].split("options:")[1]


def test_a_head_of_another_task_is_not_kept(tmp_path, data_dir):
    """A classifier of three classes is no start for two: said, not silently replaced; the encoder alone is."""
    from tests.recipes.runs import refused

    other = make_bert_folder(tmp_path / "three", ("a", "b", "c"), layers=1)
    line = refused(run_glue.main, glue(data_dir, other, tmp_path / "run"), tmp_path)
    assert "3 outputs" in line and str(other) in line


def test_a_killed_training_continues_to_the_same_bytes(teachers, data_dir, encoder, tmp_path, monkeypatch):
    """Cut off in the fifth epoch, started again by the same command (in one process; test_resume.py really kills)."""
    argv = glue(data_dir, encoder, tmp_path / "run", "SST-2")
    from distill.training import checkpoint

    saved = []

    def save(*args, **kwargs):
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(args[1])
        return whole(*args, **kwargs)

    whole = checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run_glue.main(argv)
    assert saved == [12, 24, 36, 48]
    run = run_glue.main(argv)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == (teachers("SST-2") / name).read_bytes()
    assert json.loads((run / "run.json").read_text())["resumed"] == 1
