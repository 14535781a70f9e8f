"""A teacher is refused when it would teach the wrong thing, and its outputs are those of its model."""

import re
import shutil

import numpy as np
import paddle
import pytest

from distill import runtime
from distill.data.tasks import get_task, load_rows
from distill.data.wordpiece import WordPiece
from distill.encoders import inference
from distill.encoders.folder import find_model, load_bert, save_bert
from distill.errors import UserError
from distill.options import TaskOptions, TeacherOptions
from distill.teachers.teacher import Teacher
from tests.tiny import make_bert_folder, make_glue_data

TASKS = ("SST-2", "STS-B", "MRPC")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    for task in TASKS:
        make_glue_data(path, task, rows=80)
    return path


@pytest.fixture(scope="module")
def folders(data, tmp_path_factory):
    """A tiny random BERT for each task, its head solved by least squares on the dev rows: a teacher that knows them."""
    made = {}
    for name in TASKS:
        task = get_task(name)
        folder = make_bert_folder(tmp_path_factory.mktemp(name) / "teacher", labels=task.labels)
        rows = dev_rows(data, name)
        model = load_bert(folder, task.num_outputs)
        model.eval()
        wordpiece = WordPiece.from_folder(folder)
        batch = wordpiece.encode(rows.text_a, rows.text_b, 64).pad(np.arange(len(rows)))
        ids, types = paddle.to_tensor(batch["input_ids"]), paddle.to_tensor(batch["token_type_ids"])
        with paddle.no_grad():
            pooled = model.bert(ids, types, attention_mask=paddle.to_tensor(batch["mask"]))[1].numpy()
        target = rows.labels[:, None] if task.regression else np.eye(task.num_outputs)[rows.labels] - 0.5
        features = np.c_[pooled, np.ones(len(pooled))].astype(np.float64)
        solved = np.linalg.lstsq(features, target, rcond=None)[0].astype(np.float32)
        model.classifier.weight.set_value(solved[:-1])
        model.classifier.bias.set_value(solved[-1])
        save_bert(model, folder, wordpiece, task.labels)
        made[name] = folder
    return made


def dev_rows(data, name):
    return load_rows(TaskOptions(task_name=name, data_dir=str(data)), get_task(name), "dev")


@pytest.fixture
def options(tmp_path):
    return TeacherOptions(cache_dir=str(tmp_path / "cache"))


def altered(folder, tmp_path, labels=None, weight=lambda w: w):
    """A copy of the teacher with other labels, or with its head's weight [H, C] changed."""
    model = load_bert(folder, find_model(folder).num_outputs, head="stored")
    model.classifier.weight.set_value(weight(model.classifier.weight.numpy()))
    model.classifier.bias.set_value(weight(model.classifier.bias.numpy()[None])[0])
    save_bert(model, tmp_path / "altered", WordPiece.from_folder(folder), labels)
    return tmp_path / "altered"


def refused(teacher, rows):
    with pytest.raises(UserError) as error:
        teacher.check(rows)
    text = str(error.value)
    assert "\n" not in text and "--skip_teacher_check" in text
    return text


def test_a_sound_teacher_passes(folders, data, options):
    teacher = Teacher(folders["SST-2"], get_task("SST-2"), 64, options)
    figures = teacher.check(dev_rows(data, "SST-2"))
    assert figures["majority"] == 0.5 and figures["rows"] == 40
    assert figures["accuracy"] > 0.9 and figures["MCC"] > 0.8
    assert not teacher.model.training and all(p.stop_gradient for p in teacher.model.parameters())
    score = Teacher(folders["STS-B"], get_task("STS-B"), 64, options).check(dev_rows(data, "STS-B"))
    assert score["pearson"] > 0.9


def test_swapped_outputs_are_seen_and_named(folders, data, options, tmp_path, capsys):
    folder = altered(folders["SST-2"], tmp_path, labels=("LABEL_0", "LABEL_1"), weight=lambda w: w[:, ::-1].copy())
    teacher = Teacher(folder, get_task("SST-2"), 64, options)
    assert teacher.labels is None
    text = refused(teacher, dev_rows(data, "SST-2"))
    assert "read as (1, 0)" in text and "another order" in text
    options.skip_teacher_check = True
    assert teacher.check(dev_rows(data, "SST-2"))["accuracy"] < 0.1
    assert "teacher check skipped" in capsys.readouterr().out


def test_label_names_in_another_order_or_other_labels(folders, data, options, tmp_path):
    rows = dev_rows(data, "SST-2")
    for labels, expected in ((("1", "0"), "another order"), (("0", "2"), "other labels")):
        teacher = Teacher(altered(folders["SST-2"], tmp_path, labels), get_task("SST-2"), 64, options)
        text = refused(teacher, rows)
        assert expected in text and ", ".join(labels) in text
    for labels in (
        ("negative", "positive"),
        ("LABEL_0", "LABEL_1"),
    ):  # names that say nothing about the order of 0 and 1
        Teacher(altered(folders["SST-2"], tmp_path, labels), get_task("SST-2"), 64, options).check(rows)


def test_no_better_than_chance(folders, data, options, tmp_path):
    constant = altered(folders["SST-2"], tmp_path, weight=lambda w: w * 0)
    text = refused(Teacher(constant, get_task("SST-2"), 64, options), dev_rows(data, "SST-2"))
    assert "accuracy 0.500" in text and "0.500" in text and "40 dev rows" in text
    task = get_task("CoLA")  # its metric is MCC
    teacher = Teacher(constant, task, 64, options)
    assert "MCC 0.000" in refused(teacher, dev_rows(data, "SST-2"))
    score = Teacher(altered(folders["STS-B"], tmp_path, weight=lambda w: -w), get_task("STS-B"), 64, options)
    assert "Pearson -0." in refused(score, dev_rows(data, "STS-B"))


def test_what_cannot_teach_this_task(folders, options, tmp_path):
    with pytest.raises(UserError, match="3 outputs|needs 3"):
        Teacher(folders["SST-2"], get_task("MNLI"), 64, options)
    with pytest.raises(UserError, match="--max_seq_length 65: .*at most 64"):
        Teacher(folders["SST-2"], get_task("SST-2"), 65, options)
    save_bert(load_bert(folders["SST-2"]), tmp_path / "encoder", WordPiece.from_folder(folders["SST-2"]))
    with pytest.raises(UserError, match="fine-tune"):
        Teacher(tmp_path / "encoder", get_task("SST-2"), 64, options)
    assert Teacher(folders["SST-2"], None, 64, options).model.num_labels == 2


def test_rows_without_labels_cannot_check(folders, data, options):
    rows = dev_rows(data, "SST-2")
    rows.labels = None
    with pytest.raises(UserError, match="no labels"):
        Teacher(folders["SST-2"], get_task("SST-2"), 64, options).check(rows)


def test_digest_names_weights_config_vocabulary_and_length(folders, options, tmp_path):
    def digest(folder, length=64):
        return Teacher(folder, get_task("SST-2"), length, options).digest

    def copy(name):
        return shutil.copytree(folders["SST-2"], tmp_path / name)

    first = digest(folders["SST-2"])
    assert first == digest(copy("same"))
    config = copy("config")
    (config / "config.json").write_text((config / "config.json").read_text().replace('"gelu"', '"relu"'))
    vocabulary = copy("vocabulary")
    lines = (vocabulary / "vocab.txt").read_text().split("\n")
    lines[-3], lines[-2] = lines[-2], lines[-3]
    (vocabulary / "vocab.txt").write_text("\n".join(lines))
    weights = altered(folders["SST-2"], tmp_path, weight=lambda w: w * 1.5)
    others = [digest(config), digest(vocabulary), digest(weights), digest(folders["SST-2"], 32)]
    assert len({first, *others}) == 5


def test_forward_gives_the_models_own_tensors(folders, data, options):
    teacher = Teacher(folders["MRPC"], get_task("MRPC"), 64, options)
    encoded = teacher.encode(dev_rows(data, "MRPC"))
    batch = encoded.pad(np.arange(5))
    found = teacher.forward(batch, ("logits", "cls:0,3", "hidden:1,3", "scores:2"))
    width = batch["mask"].shape[1]
    assert {kind: value.shape for kind, value in found.items()} == {
        "logits": (5, 2), "cls": (5, 2, 32), "hidden": (5, 2, width, 32), "scores": (5, 1, 4, width, width),
    }  # fmt: skip
    ids, types = paddle.to_tensor(batch["input_ids"]), paddle.to_tensor(batch["token_type_ids"])
    with paddle.no_grad():
        mask = paddle.to_tensor(batch["mask"])
        out = teacher.model.bert(ids, types, attention_mask=mask, output_hidden_states=True, return_dict=True)
        logits = teacher.model(ids, types, attention_mask=mask).numpy()
    np.testing.assert_allclose(found["logits"], logits, atol=5e-4)  # a head solved by least squares has huge weights
    hidden = [h.numpy() for h in out.hidden_states]
    np.testing.assert_allclose(found["cls"], np.stack([hidden[0][:, 0], hidden[3][:, 0]], axis=1), atol=1e-5)
    real = batch["mask"].astype(bool)
    for i, layer in enumerate((1, 3)):
        np.testing.assert_allclose(found["hidden"][:, i][real], hidden[layer][real], atol=1e-5)
        assert not found["hidden"][:, i][~real].any()
    # the scores by hand, from the layer's input: (x Wq + bq)(x Wk + bk)^T / sqrt(8), 4 heads of 8
    attention = teacher.model.bert.encoder.layers[1].self_attn
    q, k = (
        (hidden[1][0] @ p.weight.numpy() + p.bias.numpy()).reshape(width, 4, 8).transpose(1, 0, 2)
        for p in (attention.q_proj, attention.k_proj)
    )
    n = int(batch["lengths"][0])
    np.testing.assert_allclose(
        found["scores"][0, 0, :, :n, :n], (q @ k.transpose(0, 2, 1) / np.sqrt(8))[:, :n, :n], atol=1e-5
    )
    assert not found["scores"][0, 0, :, n:].any() and not found["scores"][0, 0, :, :, n:].any()
    assert teacher.forward(batch, ("cls",))["cls"].shape == (5, 4, 32)


def test_outputs_that_do_not_exist(folders, options):
    teacher = Teacher(folders["SST-2"], get_task("SST-2"), 64, options)
    for name in ("hidden:4", "scores:0", "cls:1,9"):
        with pytest.raises(UserError, match="layers"):
            teacher.forward({}, (name,))
    for names in (("hidden",), ("attention:1",), ("hidden:1", "hidden:2")):
        with pytest.raises(ValueError):
            teacher.forward({}, names)


def test_the_way_it_runs_is_found_out_once_for_a_cache(folders, data, tmp_path, monkeypatch, capsys):
    options = TeacherOptions(cache_dir=str(tmp_path / "cache"))
    chosen = iter(("eager", "compiled"))
    monkeypatch.setattr(inference, "available", lambda: True)
    monkeypatch.setattr(inference, "faster", lambda ways, batch: next(chosen))
    found = []
    for _ in range(2):
        teacher = Teacher(folders["SST-2"], get_task("SST-2"), 64, options)
        found.append(teacher.outputs(teacher.encode(dev_rows(data, "SST-2")), ("logits", "cls:2", "scores:1")))
    assert [cached.hit_rate for cached in found] == [0.0, 1.0]
    teacher.options.cache_dir = str(tmp_path / "other")
    other = Teacher(folders["SST-2"], get_task("SST-2"), 64, options)
    compiled = other.outputs(other.encode(dev_rows(data, "SST-2")), ("logits", "cls:2", "scores:1"))
    assert compiled.hit_rate == 0.0
    rows = np.arange(12)
    for kind, value in compiled.batch(rows).items():
        np.testing.assert_allclose(found[0].batch(rows)[kind], value, atol=5e-4, err_msg=kind)


def test_bfloat16_says_how_far_it_is_off_and_has_its_own_cache(folders, data, options, monkeypatch, capsys):
    monkeypatch.setattr(inference, "require", lambda precision: None)
    rows = dev_rows(data, "SST-2")
    for precision in ("fp32", "bf16"):
        options.forward_precision = precision
        teacher = Teacher(folders["SST-2"], get_task("SST-2"), 64, options)
        figures = teacher.check(rows)
        assert figures["accuracy"] > 0.6
    printed = capsys.readouterr().out
    line = (
        rf"bf16: on {len(rows)} rows the teacher's logits differ from fp32's by at most \S+, \d+\.\d % of its answers"
    )
    assert len(re.findall(line, printed)) == 1
    assert printed.count(" 0 found (0.0 %)") == 2


def test_outputs_of_a_gpu_have_their_own_cache(folders, data, options, monkeypatch, capsys):
    """Here a CPU under that name: what is looked at is where its outputs are kept."""
    rows = dev_rows(data, "SST-2")
    for device in ("cpu", "gpu:0", "gpu:0", "cpu"):
        with monkeypatch.context() as patch:
            patch.setattr(paddle, "get_device", lambda device=device: device)
            Teacher(folders["SST-2"], get_task("SST-2"), 64, options).check(rows)
    asked = [line for line in capsys.readouterr().out.splitlines() if line.startswith("teacher cache")]
    assert [" 0 found (0.0 %)" in line for line in asked] == [True, True, False, False]


def test_bfloat16_moves_the_logits_a_little(folders, data, tmp_path):
    if not (inference.available() and runtime.has_bfloat16()):
        pytest.skip("this processor multiplies no bfloat16 numbers")
    found, task, rows = [], get_task("SST-2"), dev_rows(data, "SST-2")
    for precision in ("fp32", "bf16"):
        options = TeacherOptions(cache_dir=str(tmp_path / "cache"), forward_precision=precision)
        teacher = Teacher(folders["SST-2"], task, 64, options)
        found.append(teacher.outputs(teacher.encode(rows), ("logits", "cls:3")).batch(np.arange(len(rows))))
    exact, rough = found
    assert np.abs(rough["logits"] - exact["logits"]).max() > 1e-6
    # Not of the logits: the solved head multiplies what the layer's norm gives by large numbers.
    assert np.abs(rough["cls"] - exact["cls"]).mean() < 0.05 * exact["cls"].std()


def test_bfloat16_is_refused_where_the_processor_has_none(folders, options, monkeypatch):
    monkeypatch.setattr(runtime, "has_bfloat16", lambda: False)
    options.forward_precision = "bf16"
    with pytest.raises(UserError, match="--forward_precision bf16: this processor"):
        Teacher(folders["SST-2"], get_task("SST-2"), 64, options)
