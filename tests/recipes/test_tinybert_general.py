"""tinybert/general_distill.py from end to end, and task_distill.py from its student."""

import numpy as np
import pytest

from distill.encoders.folder import PROJECTIONS, load_bert, load_projections
from distill.files import read_json, write_json
from distill.tensors import load_tensors
from tests.recipes.runs import interrupted, metrics, read, refused, taught
from tests.recipes.test_tinybert import LAYERS, first_stage, losses, same_weights
from tinybert import general_distill, task_distill

NARROW = ("--student_layers", 2, "--student_hidden_size", 16)
LINES = 90


@pytest.fixture(scope="module")
def text(data_dir, tmp_path_factory):
    """The sentences of SST-2, one a line, with empty lines between documents."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    rows = (data_dir / "SST-2" / "train.tsv").read_text().splitlines()[1 : LINES + 1]
    path.write_text("\n".join(row.split("\t")[0] + "\n" * (i % 7 == 0) for i, row in enumerate(rows)))
    return path


def flags(text, teacher, folder, *more):
    """2 epochs of 6 steps."""
    fixed = ("--input_dir", text, "--teacher_model_name_or_path", teacher, "--output_dir", folder)
    more = more if {"--student_layers", "--student_init", "--model_name_or_path"} & set(more) else (*NARROW, *more)
    sizes = ("--max_seq_length", 32, "--batch_size", 16, "--num_train_epochs", 2, "--logging_steps", 3)
    return [str(value) for value in (*fixed, *sizes, "--learning_rate", "1e-3", *more)]


def test_from_end_to_end(text, encoder, tmp_path, capsys):
    folder = general_distill.main(flags(text, encoder, tmp_path / "run", "--num_train_epochs", 8))
    assert capsys.readouterr().out.endswith(f"written: {folder}\n")
    facts = read(folder / "run.json")
    assert facts["finished"] and (facts["train_rows"], facts["rows"], facts["steps"]) == (LINES, 8 * LINES, 48)
    first, *_, last = losses(folder)
    assert set(first) == set(LAYERS) and all(last[name] < 0.9 * first[name] for name in first)
    student = load_bert(folder)
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    assert set(load_projections(folder)) == {f"fit_denses.{i}.{part}" for i in range(3) for part in ("weight", "bias")}
    assert not any("dev" in row for row in metrics(folder))


def test_task_distillation_starts_from_its_student(text, encoder, data_dir, teachers, tmp_path):
    general = general_distill.main(flags(text, encoder, tmp_path / "general"))
    still = ("--learning_rate", "1e-30", "--prediction_learning_rate", "1e-30", "--num_train_epochs", 1)
    argv = taught(data_dir, teachers("SST-2"), tmp_path / "run", "SST-2", "--model_name_or_path", general, *still)
    folder = task_distill.main(argv)
    ours, theirs = load_tensors(general / "model.safetensors"), load_tensors(folder / "model.safetensors")
    for name in ours:
        np.testing.assert_allclose(theirs[f"bert.{name}"], ours[name], atol=1e-20)
    for name, array in load_projections(general).items():
        np.testing.assert_allclose(load_projections(first_stage(folder))[name], array, atol=1e-20)
    # Another student in the same folder is another run's.
    general_distill.main(flags(text, encoder, tmp_path / "general", "--seed", 7, "--overwrite"))
    assert "student " in refused(task_distill.main, argv, folder)


def test_a_copy_of_the_teacher_has_no_loss(text, encoder, tmp_path, home):
    import shutil

    still = shutil.copytree(encoder, tmp_path / "still")
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    write_json(still / "config.json", read_json(still / "config.json") | none)
    more = ("--student_layers", 2, "--learning_rate", "1e-30", "--logging_steps", 1)
    folder = general_distill.main(flags(text, still, tmp_path / "run", *more))
    rows = losses(folder)
    assert len(rows) == 12 and all(abs(value) < 1e-8 for row in rows for value in row.values())
    assert not (folder / PROJECTIONS).exists()


@pytest.mark.parametrize("step", [3, 8])
def test_interrupted_and_continued(step, text, encoder, tmp_path, monkeypatch):
    def argv(name):
        return flags(text, encoder, tmp_path / name, *NARROW, "--save_steps", 2)

    interrupted(general_distill.main, argv("run"), step, monkeypatch)
    run, whole = general_distill.main(argv("run")), general_distill.main(argv("whole"))
    assert same_weights(run, whole)
    for name in ("metrics.jsonl", PROJECTIONS):
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_finished_and_overwritten(text, encoder, tmp_path, capsys):
    argv = flags(text, encoder, tmp_path / "run")
    general_distill.main(argv)
    general_distill.main(argv)
    assert "holds this run, finished" in capsys.readouterr().out
    assert "seed 42 there, 7 now" in refused(general_distill.main, [*argv, "--seed", "7"], tmp_path / "run")


def test_what_cannot_work_is_refused(text, encoder, tmp_path):
    def line(*more):
        return refused(general_distill.main, flags(text, encoder, tmp_path / "run", *more), tmp_path)

    argv = flags(text, encoder, tmp_path / "run")
    assert refused(general_distill.main, argv[2:], tmp_path).startswith("--input_dir is needed")
    assert refused(general_distill.main, argv[:2] + argv[4:], tmp_path).startswith("--teacher_model_name_or_path is n")
    assert line("--input_dir", tmp_path / "none", *NARROW).startswith(f"{tmp_path}/none: no such file or folder")
    (tmp_path / "text.txt").write_bytes(b"a film\ncaf\xe9\n")
    assert line("--input_dir", tmp_path / "text.txt", *NARROW).startswith(f"{tmp_path}/text.txt:2: not UTF-8 text")
    assert line("--student_layers", 1, "--student_heads", 2).startswith("the student has 2 attention heads")
    assert line("--teacher_model_name_or_path", "models/none", *NARROW).startswith("models/none: no such folder")
