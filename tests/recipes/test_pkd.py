"""pkd/task_distill.py from end to end: both kinds of patience, which layers they pair, and the published names."""

import numpy as np
import paddle
import pytest

from distill.cli import parse
from distill.data.tasks import get_task, load_rows
from distill.encoders.folder import load_bert
from distill.encoders.projections import Projections
from distill.encoders.taps import Taps
from distill.errors import UserError
from distill.evaluation.evaluate import bert_forward
from distill.options import TaskOptions, TeacherOptions
from distill.teachers.teacher import Teacher
from distill.tensors import load_tensors
from pkd import task_distill
from pkd.args import PKDArgs
from pkd.task_distill import layer_pairs, run_name
from tests.recipes.runs import interrupted, metrics, read, refused, taught

CLS, TOKENS = (), ("--patience", "tokens", "--beta", 10)
BOTH = pytest.mark.parametrize("flags", [CLS, TOKENS], ids=["cls", "tokens"])


@BOTH
@pytest.mark.parametrize("task", ["SST-2", "STS-B"])
def test_from_end_to_end(task, flags, data_dir, deep_teachers, tmp_path):
    argv = taught(data_dir, deep_teachers(task), tmp_path / "run", task, "--student_layers", 2, *flags)
    folder = task_distill.main(argv)
    assert metrics(folder)[0]["losses"].keys() == {"teacher", "label", "patience"}
    student = load_bert(folder, 1 if task == "STS-B" else 2, head="stored")
    assert student.config.num_hidden_layers == 2
    assert read(folder / "results_eval.json")["parameters"] == sum(p.size for p in student.parameters())
    assert set(load_tensors(folder / "model.safetensors")) == set(student.state_dict())  # no projection in it


def test_patience_at_the_published_bound(data_dir, still_teacher, tmp_path):
    """A copy of the teacher has none, at every step, so the rows of the cache are those of the batch; another student
    has some, of at most beta * 4 / H."""
    still = ("--learning_rate", "1e-30", "--logging_steps", 1, "--num_train_epochs", 1)
    copy = taught(data_dir, still_teacher, tmp_path / "copy", "SST-2", *still, "--student_layers", 4)
    pairs = ("--layer_map", "1,2,3")
    losses = [row["losses"] for row in metrics(task_distill.main([*copy, *pairs])) if "losses" in row]
    assert len(losses) == 6 and all(abs(row["patience"]) < 1e-6 and abs(row["teacher"]) < 1e-4 for row in losses)
    random = ("--student_init", "random", "--student_layers", 2)
    other = taught(data_dir, still_teacher, tmp_path / "other", "SST-2", *still, *random)
    for row in metrics(task_distill.main(other)):
        if "losses" in row:
            assert 1.0 < row["losses"]["patience"] < 500 * 4 / 32


NARROW = ("--student_init", "random", "--student_layers", 3, "--student_hidden_size", 16)
WIDE = ("--student_init", "random", "--student_layers", 3)


@pytest.mark.parametrize(
    ("student", "more", "pairs"),
    [
        (WIDE, ("--layer_map", "2,3"), [(1, 2), (2, 3)]),
        (WIDE, ("--layer_map", "2,3", "--loss_form", "paper"), [(1, 2), (2, 3)]),
        (WIDE, ("--layer_map", "2,3", "--normalize_patience", "false"), [(1, 2), (2, 3)]),
        (NARROW, ("--patience", "tokens", "--layer_map", "0,1,2,4"), [(0, 0), (1, 1), (2, 2), (3, 4)]),
    ],
    ids=["cls", "paper", "not normalised", "tokens"],
)
def test_the_logged_losses_by_hand(student, more, pairs, data_dir, still_teacher, tmp_path):
    """All rows in one batch with nothing learned, against float64 and the models' own states, row by row."""
    still = ("--learning_rate", "1e-30", "--num_train_epochs", 1, "--batch_size", 1000, "--logging_steps", 1)
    weights = ("--alpha", 0.6, "--beta", 7, "--T", 4)
    argv = taught(data_dir, still_teacher, tmp_path / "run", "SST-2", *student, *still, *weights, *more)
    folder = task_distill.main(argv)
    ours, theirs = (load_bert(path, 2, head="stored") for path in (folder, still_teacher))
    ours.eval(), theirs.eval()
    tokens, width = "tokens" in more, 32
    if tokens:
        shared = Projections("shared", 3, 16, 32, seed=42).fit_dense
        weight, bias = shared.weight.numpy().astype(np.float64), shared.bias.numpy()
    task = get_task("SST-2")
    rows = load_rows(TaskOptions(data_dir=str(data_dir)), task, "train")
    reader = Teacher(still_teacher, task, 32, TeacherOptions(cache_dir=str(tmp_path / "cache")))
    encoded = reader.encode(rows)
    assert len(set(encoded.lengths.tolist())) > 3  # so the batch is padded
    expected = dict.fromkeys(("teacher", "label", "patience"), 0.0)
    for i, label in enumerate(rows.labels):
        batch = {name: paddle.to_tensor(value) for name, value in encoded.pad([i]).items()}
        with Taps(ours) as mine, Taps(theirs) as other, paddle.no_grad():
            s, t = (bert_forward(model)(batch).numpy().astype(np.float64)[0] for model in (ours, theirs))
        for a, b in pairs:
            x, y = mine.hidden[a].numpy()[0].astype(np.float64), other.hidden[b].numpy()[0].astype(np.float64)
            if tokens:
                expected["patience"] += 7 * ((x @ weight + bias - y) ** 2).mean()
                continue
            x, y = x[0], y[0]
            if "--normalize_patience" not in more:
                x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
            expected["patience"] += 7 * ((x - y) ** 2).sum() / (1 if "paper" in more else len(pairs) * width)
        p, q = softmax(t / 4), softmax(s / 4)
        expected["teacher"] += 0.6 * 16 * (p * np.log(p / q)).mean()
        expected["label"] -= 0.4 * np.log(softmax(s)[label])
    (row,) = [row for row in metrics(folder) if "losses" in row]
    assert row["losses"] == pytest.approx({name: x / len(rows) for name, x in expected.items()}, rel=1e-3)


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_weights_0_leave_the_teacher_or_a_part_of_it_out(data_dir, still_teacher, tmp_path):
    flags = ("--student_layers", 2, "--num_train_epochs", 1)
    for name, more, losses in (
        ("patience", ("--alpha", 0), {"label", "patience"}),
        ("logits", ("--beta", 0), {"teacher", "label"}),
        ("both", ("--alpha", 1), {"teacher", "patience"}),
    ):
        folder = task_distill.main(taught(data_dir, still_teacher, tmp_path / name, "SST-2", *flags, *more))
        assert metrics(folder)[0]["losses"].keys() == losses
    # Without patience no layers are paired: any depth will do.
    deeper = ("--student_layers", 1, "--beta", 0, "--max_steps", 1)
    task_distill.main(taught(data_dir, still_teacher, tmp_path / "one", "SST-2", *deeper))
    assert "--patience cls compares the layers below the last, and a student of 1 layer has none" in refused(
        task_distill.main, taught(data_dir, still_teacher, tmp_path / "no", "SST-2", *deeper[:2]), tmp_path
    )


@BOTH
def test_control_arm(flags, data_dir, still_teacher, tmp_path):
    more = ("--student_layers", 2, "--learning_rate", "1e-30", "--logging_steps", 1, "--control", *flags)
    folder = task_distill.main(taught(data_dir, still_teacher, tmp_path / "run", "SST-2", *more))
    alone = folder / "control" / "alone_seed-42"
    ours, theirs = (load_tensors(path / "model.safetensors") for path in (folder, alone))
    assert all(np.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in ours)
    for a, b in zip(metrics(folder), metrics(alone), strict=True):
        if "losses" in a:
            assert b["losses"] == {"label": pytest.approx(a["losses"]["label"] / 0.3, rel=1e-5)}


@BOTH
def test_interrupted_and_continued(flags, data_dir, deep_teachers, tmp_path, monkeypatch):
    def argv(name):
        more = ("--student_layers", 2, "--save_steps", 1, "--logging_steps", 3, *flags)
        return taught(data_dir, deep_teachers("SST-2"), tmp_path / name, "SST-2", *more)

    interrupted(task_distill.main, argv("run"), 7, monkeypatch)
    run, whole = task_distill.main(argv("run")), task_distill.main(argv("whole"))
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("flags", "depths", "pairs"),
    [
        ((), (3, 12), [(1, 4), (2, 8)]),
        ((), (6, 12), [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]),
        (("--layer_map", "last"), (3, 12), [(1, 10), (2, 11)]),
        (("--layer_map", "last"), (6, 12), [(1, 7), (2, 8), (3, 9), (4, 10), (5, 11)]),
        (("--layer_map", "2,7"), (3, 12), [(1, 2), (2, 7)]),
        (("--patience", "tokens"), (3, 12), [(0, 0), (1, 4), (2, 8), (3, 12)]),
        (("--patience", "tokens", "--layer_map", "0,3,7,11"), (3, 12), [(0, 0), (1, 3), (2, 7), (3, 11)]),
    ],
)
def test_pairs_of_layers(flags, depths, pairs):
    assert layer_pairs(parse(PKDArgs, list(flags)), *depths) == pairs


@pytest.mark.parametrize(
    ("flags", "depths", "message"),
    [
        ((), (5, 12), "cannot be spread evenly"),
        ((), (1, 12), "a student of 1 layer has none: choose at least 2 --student_layers, or --patience tokens"),
        (("--layer_map", "uniform"), (3, 12), "--layer_map uniform: for --patience cls choose skip or last"),
        (("--layer_map", "skip", "--patience", "tokens"), (3, 12), "for --patience tokens choose uniform, or list"),
        (("--layer_map", "4"), (3, 12), "--layer_map 4: 1 teacher layers given, 2 needed"),
        (("--layer_map", "4,13"), (3, 12), "--layer_map 4,13: there is no teacher layer 13"),
    ],
)
def test_pairs_that_do_not_exist_are_refused(flags, depths, message):
    with pytest.raises(UserError, match=message):
        layer_pairs(parse(PKDArgs, list(flags)), *depths)


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("sst2", "bert-pkd_3_epoch-4_lr-2e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10"),
        ("qqp", "bert-pkd_3_epoch-5_lr-5e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10"),
        ("mrpc", "bert-pkd_3_epoch-5_lr-2e-5_wd-0.001_kd_alpha-0.2_kd_beta-10"),
        ("rte", "bert-pkd_3_epoch-5_lr-3e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10"),
        ("cola", "bert-pkd_3_epoch-100_lr-5e-5_wd-0.0001_kd_alpha-0.2_kd_beta-10"),
    ],
)
def test_presets_make_the_published_students(preset, name):
    args = parse(PKDArgs, ["--config", preset])
    assert run_name(args, 3) == name
    assert (args.patience, args.student_init, args.T) == ("tokens", "3,7,11", 1.0)


def test_what_cannot_work_is_refused(data_dir, still_teacher, tmp_path):
    def line(*flags):
        return refused(task_distill.main, taught(data_dir, still_teacher, tmp_path / "run", "SST-2", *flags), tmp_path)

    task_distill.main(taught(data_dir, still_teacher, tmp_path / "warm", "SST-2", "--student_layers", 2))
    assert line("--student_layers", 2, "--alpha", 0, "--beta", 0).startswith(
        "--alpha 0 --beta 0: nothing of the teacher"
    )
    narrow = ("--student_init", "random", "--student_layers", 2, "--student_hidden_size", 16)
    assert line(*narrow).startswith("--patience cls compares vectors of one width, these are 16 and 32")
    assert "--layer_map" in line("--student_layers", 2, "--layer_map", "none")
    assert line("--student_layers", 3).startswith("a student of 3 layers cannot be spread")


def test_a_narrow_student_learns_tokens_through_the_projection(data_dir, still_teacher, tmp_path):
    narrow = ("--student_init", "random", "--student_layers", 2, "--student_hidden_size", 16, *TOKENS)
    argv = taught(data_dir, still_teacher, tmp_path / "run", "SST-2", *narrow, "--num_train_epochs", 6)
    losses = [row["losses"]["patience"] for row in metrics(task_distill.main(argv)) if "losses" in row]
    assert losses[-1] < 0.9 * losses[0]
