"""virt/ from end to end: the teacher's layout and scores, what the dual encoder learns of them, and the published
commands."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import paddle
import pytest

from distill.cli import parse
from distill.data.pairs import PairLayout, Pairs
from distill.data.readers import Rows
from distill.data.tasks import get_task, load_rows
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert
from distill.encoders.taps import Taps
from distill.errors import UserError
from distill.evaluation.predictions import load_predictions
from distill.files import read_json, write_json
from distill.options import TaskOptions, TeacherOptions
from distill.teachers import cache
from distill.teachers.cache import Requests
from distill.teachers.teacher import BertForPairs, PairTeacher, load_pair_bert, save_pair_bert
from distill.tensors import load_tensors, save_tensors
from models.dual_encoder import MODEL_TYPES, create_dual_encoder, load_dual_encoder, tower_inputs
from models.predictor import read_run
from tests.recipes.runs import interrupted, metrics, no_clock, read, refused
from tests.tiny import FILLERS, NOUNS, make_bert_folder, make_task_data
from tools import compare, evaluate, export
from virt import data, run_classifier_bipartition, sbert_distill
from virt.args import BipartitionArgs, SbertDistillArgs
from virt.losses import distillation_losses, taught_layers, virtual_scores

# The flags of the original document's commands, as they stand there.
TEACHER_MNLI = """--task_name=mnli --do_train=true --do_eval=true --do_predict=false --data_dir=$MY_DATASET
  --vocab_file=$BERT_BASE_DIR/vocab.txt --bert_config_file=$BERT_BASE_DIR/bert_config.json
  --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt --max_seq_length=259 --train_batch_size=40 --learning_rate=5e-5
  --num_train_epochs=6.0 --output_dir=$OUTPUT --pooling_strategy=mean"""
TEACHER_BOOLQ = """--task_name=boolq --do_train=true --do_eval=true --do_predict=false --data_dir=$MY_DATASET
  --vocab_file=$BERT_BASE_DIR/vocab.txt --bert_config_file=$BERT_BASE_DIR/bert_config.json
  --init_checkpoint=$BERT_BASE_DIR/bert_model.ckpt --max_seq_length_query=64 --max_seq_length_doc=328
  --train_batch_size=28 --learning_rate=5e-5 --num_train_epochs=30.0 --output_dir=$OUTPUT --pooling_strategy=mean"""
STUDENT_QQP = """--task_name=qqp --pooling_strategy=mean --do_train=true --do_eval=true --do_predict=false
  --data_dir=$MY_DATASET --vocab_file=$BERT_MODEL_DIR/vocab.txt --bert_config_file=$BERT_MODEL_DIR/bert_config.json
  --init_checkpoint_teacher=$TEACHER_MODEL_DIR/model.ckpt-46000
  --init_checkpoint_student=$BERT_MODEL_DIR/bert_model.ckpt --max_seq_length_bert=259 --max_seq_length_sbert=130
  --train_batch_size=32 --learning_rate=5e-5 --test_flie_name=None --num_train_epochs=6 --do_save=false
  --output_dir=$OUTPUT --use_kd_logit_kl=false --use_kd_logit_mse=false --kd_weight_logit=0.4 --use_kd_att=true
  --kd_weight_att=700 --use_all_layer_emb=false --use_resnet_predict=true --use_weighted_att=false
  --use_att_head=false --model_type=late_fusion"""
STUDENT_RTE = """--task_name=rte --pooling_strategy=mean --do_train=true --do_eval=true --do_predict=false
  --data_dir=$MY_DATASET --vocab_file=$BERT_MODEL_DIR/vocab.txt --bert_config_file=$BERT_MODEL_DIR/bert_config.json
  --init_checkpoint_teacher=$TEACHER_MODEL_DIR/model.ckpt-2000
  --init_checkpoint_student=$BERT_MODEL_DIR/bert_model.ckpt --max_seq_length_query=64 --max_seq_length_doc=328
  --train_batch_size=28 --learning_rate=5e-5 --test_flie_name=None --num_train_epochs=30 --do_save=false
  --output_dir=$OUTPUT --use_kd_logit_kl=false --use_kd_logit_mse=false --kd_weight_logit=0.4 --use_kd_att=true
  --kd_weight_att=700 --use_resnet_predict=true --model_type=late_fusion"""


def words(*values):
    return [str(value) for value in values]


def teaching(data_dir, encoder, folder, task="MRPC", *more):
    """Flags of run_classifier_bipartition.py; later ones win."""
    return words(
        *("--task_name", task, "--data_dir", data_dir, "--init_checkpoint", encoder, "--output_dir", folder),
        *("--max_seq_length_query", 14, "--max_seq_length_doc", 18, "--learning_rate", "3e-3"),
        *("--batch_size", 8, "--num_train_epochs", 6, *more),
    )  # fmt: skip


def learning(data_dir, teacher, folder, task="MRPC", *more):
    """Flags of sbert_distill.py; later ones win."""
    return words(
        *("--task_name", task, "--data_dir", data_dir, "--teacher_path", teacher, "--output_dir", folder),
        *("--cache_dir", folder.parent / "cache", "--learning_rate", "1e-3", "--batch_size", 16),
        *("--num_train_epochs", 1, *more),
    )  # fmt: skip


@pytest.fixture(scope="session")
def pair_teachers(home, data_dir, encoder):
    """pair_teachers(task): the folder of a finished run of run_classifier_bipartition.py."""
    made = {}

    def of(task):
        if task not in made:
            with pytest.MonkeyPatch.context() as patch:
                no_clock(patch)
                argv = teaching(data_dir, encoder, home / f"pairs {task}", task)
                made[task] = run_classifier_bipartition.main(argv)
        return made[task]

    return of


@pytest.fixture(scope="session")
def rows(data_dir):
    return load_rows(TaskOptions(task_name="MRPC", data_dir=str(data_dir)), get_task("MRPC"), "train").take(range(12))


@pytest.fixture(scope="session")
def still(home, encoder):
    """A random BertForPairs of two layers that reads texts of 16 and 24 tokens, without dropout."""
    wordpiece = WordPiece.from_folder(encoder)
    bert = load_bert(encoder)
    for layer in bert.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
    bert.config.hidden_dropout_prob = bert.config.attention_probs_dropout_prob = 0.0
    save_pair_bert(BertForPairs(bert, 2), home / "still pairs", wordpiece, ("0", "1"), PairLayout(16, 24))
    return home / "still pairs"


@pytest.fixture
def teach(still, tmp_path):
    """teach(...): the teacher `still`, without the choice of a faster way."""

    def made(folder=still, fixed=False, way="eager", **options):
        found = PairTeacher(folder, None, TeacherOptions(**{"cache_dir": str(tmp_path / "cache")} | options), fixed)
        found._way = way
        return found

    return made


@pytest.fixture
def teacher(teach):
    return teach()


def student_of(folder, model_type="late_fusion", **settings):
    found = create_dual_encoder(model_type, load_bert(folder), 2, **settings)
    found.eval()
    return found


def tensors(batch):
    return {name: paddle.to_tensor(value) for name, value in batch.items()}


def batch_of(teacher, texts, layers=(1, 2)):
    """What sbert_distill.py gives its losses: the towers, and the teacher's scores layer by layer."""
    indices = np.arange(len(texts))
    inner = ",".join(map(str, layers))
    taught = teacher.outputs(texts, ("logits", f"first_to_second:{inner}", f"second_to_first:{inner}")).batch(indices)
    by_layer = {name: paddle.unstack(paddle.to_tensor(x), 1) for name, x in taught.items() if name != "logits"}
    return tensors(texts.pad(indices)) | {"logits": paddle.to_tensor(taught["logits"])} | by_layer


# The teacher.


@pytest.mark.parametrize("task", ["MRPC", "STS-B"])
def test_the_teacher_from_end_to_end(task, pair_teachers, capsys):
    folder = pair_teachers(task)
    result = read(folder / "results_eval.json")
    assert result[result["metric"]] > (0.8 if task == "MRPC" else 0.5)
    model, layout = load_pair_bert(folder)
    assert (layout.first, layout.second, model.pooling) == (14, 18, "mean")
    assert set(load_tensors(folder / "model.safetensors")) == set(model.state_dict())
    from paddlenlp.transformers import BertModel

    theirs = BertModel.from_pretrained(str(folder)).state_dict()
    assert all((value.numpy() == theirs[name].numpy()).all() for name, value in model.bert.state_dict().items())


def test_how_many_texts_are_cut_is_said(encoder, capsys):
    rows = Rows(["a good film", "a", "a"], ["a", "the plot is", "a film"], None, "rows")
    data.report_cut_texts(PairLayout(4, 4).encode(WordPiece.from_folder(encoder), rows))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "1 of 3 first texts are longer than --max_seq_length_query 4 and are cut"
    assert second == "1 of 3 second texts are longer than --max_seq_length_doc 4 and are cut"


def test_mean_pooling_over_real_tokens(still, rows):
    model, layout = load_pair_bert(still)
    model.eval()
    batch = tensors(layout.encode(WordPiece.from_folder(still), rows).pad(np.arange(4)))
    inputs = (batch["input_ids"], batch["token_type_ids"], batch["positions"])
    with paddle.no_grad():
        hidden = model.bert(*inputs, attention_mask=batch["mask"])[0].numpy()
        first = load_pair_bert(still)[0]
        first.pooling = "cls"
        first.eval()
        logits, of_first = (m(*inputs, attention_mask=batch["mask"]).numpy() for m in (model, first))
        pooled = model.bert(*inputs, attention_mask=batch["mask"])[1].numpy()
    mask = batch["mask"].numpy()
    weight, bias = model.classifier.weight.numpy(), model.classifier.bias.numpy()
    for i in range(4):
        mean = hidden[i][mask[i] > 0].mean(axis=0)
        np.testing.assert_allclose(logits[i], mean @ weight + bias, atol=1e-5)
    np.testing.assert_allclose(of_first, pooled @ weight + bias, atol=1e-5)


@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_slices_of_the_teachers_scores(teach, rows, way):
    """Rows of the first text's tokens and columns of the second's, and the other way round, of the joint scores."""
    teacher = teach(way=way)
    texts = teacher.encode(rows)
    found = teacher.outputs(texts, ("logits", "first_to_second:1,2", "second_to_first:2")).batch(np.arange(12))
    batch = tensors(texts.pad(np.arange(12)))
    with Taps(teacher.model, scores=True) as taps, paddle.no_grad():
        logits = data.joint_answer(teacher.model)(batch)
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-5)
    a, b = batch["input_ids_a"].shape[1] - 2, batch["input_ids_b"].shape[1] - 2
    first, second = slice(1, a + 1), slice(a + 2, a + 2 + b)
    there = (batch["mask"].numpy()[:, first, None] * batch["mask"].numpy()[:, None, second])[:, None]
    for layer in (0, 1):
        scores = taps.scores[layer].numpy()
        np.testing.assert_allclose(found["first_to_second"][:, layer], scores[:, :, first, second] * there, atol=1e-5)
    back = scores[:, :, second, first] * there.swapaxes(2, 3)
    np.testing.assert_allclose(found["second_to_first"][:, 0], back, atol=1e-5)
    lengths = batch["mask_a"].numpy().sum(axis=1) - 2, batch["mask_b"].numpy().sum(axis=1) - 2
    numbers = 2 + 3 * 4 * (lengths[0] * lengths[1])
    assert teacher.outputs(texts, ("logits", "first_to_second:1,2", "second_to_first:2")).bytes == 4 * numbers.sum()


def test_cached_live_and_in_parts(teacher, teach, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "BATCH_TOKENS", 64)
    names = ("first_to_second:2", "second_to_first:1")
    texts = teacher.encode(rows)
    cached, again = (teacher.outputs(texts, names) for _ in range(2))
    assert (cached.hit_rate, again.hit_rate) == (0.0, 1.0)
    live = teach(cache_dir=str(tmp_path / "none"), cache_limit_gb=0.0).outputs(texts, names)
    half = teach(cache_dir=str(tmp_path / "half"), cache_limit_gb=20e-6).outputs(texts, names)
    assert live.live == 12 and 0 < half.live < 12
    chosen = np.array([3, 0, 7, 3])
    for kind, values in cached.batch(chosen).items():
        np.testing.assert_array_equal(values, again.batch(chosen)[kind])
        np.testing.assert_allclose(values, live.batch(chosen)[kind], atol=1e-5)
        wide = half.batch(np.arange(12))[kind][chosen]
        np.testing.assert_allclose(values, wide[..., : values.shape[-2], : values.shape[-1]], atol=1e-5)


def test_a_fixed_layout_plans_batches_by_its_padded_rows(teach, rows):
    """A batch of about 4,096 tokens, the padding among them: short rows are as wide as long ones."""
    fixed = teach(fixed=True)
    texts = fixed.encode(rows)
    joint = fixed.layout.joint
    assert texts.lengths.min() < joint and texts.pad(np.arange(2))["input_ids"].shape == (2, joint)
    n = 300
    requests = Requests.of(np.arange(2 * n, dtype="<u8").view("V16"), texts.extents[np.arange(n) % len(texts)])
    assert max(map(len, requests.batches(np.ones(n, bool)))) == 4096 // joint


def test_a_fixed_layout_says_the_same_of_real_tokens(teacher, teach, rows):
    fixed = teach(fixed=True)
    names = ("logits", "first_to_second:1,2", "second_to_first:1,2")
    here, there = (t.outputs(t.encode(rows), names).batch(np.arange(12)) for t in (teacher, fixed))
    np.testing.assert_allclose(here["logits"], there["logits"], atol=1e-5)
    assert there["first_to_second"].shape == (12, 2, 4, 14, 22) and there["second_to_first"].shape[-2:] == (22, 14)
    extents = teacher.encode(rows).extents
    for i, (_, a, b) in enumerate(extents):
        for kind, cut in (("first_to_second", (a, b)), ("second_to_first", (b, a))):
            one, other = (x[kind][i, :, :, : cut[0], : cut[1]] for x in (here, there))
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.abs(there["first_to_second"][0, :, :, extents[0, 1] :]).min() > 0  # padding asks there


def test_other_outputs_are_refused(teacher, rows):
    for name in ("hidden:1", "scores:1", "cls", "first_to_second"):
        with pytest.raises(ValueError, match="logits, first_to_second:1,2 or second_to_first:1,2"):
            teacher.outputs(teacher.encode(rows), (name,))
    with pytest.raises(UserError, match="has the layers 1 to 2"):
        teacher.outputs(teacher.encode(rows), ("first_to_second:0",))


# What the student learns.


@pytest.mark.parametrize("scaling", ["mean", "sum"])
def test_dynamic_lengths_give_the_losses_of_the_fixed_layout(teacher, teach, still, rows, scaling):
    args = SbertDistillArgs(att_scaling=scaling, use_kd_logit_mse=True)
    fixed = teach(fixed=True)
    student, found = student_of(still), []
    for one in (teacher, fixed):
        batch = batch_of(one, one.encode(rows))
        logits, named = distillation_losses(student, batch, args, one.layout)
        found.append((logits.numpy(), {name: float(value) for name, value in named.items()}))
    (logits, losses), (expected, wide) = found
    assert batch["input_ids_a"].shape == [12, 16]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert losses == pytest.approx(wide, rel=1e-5) and losses["attention"] > 1e-3
    original = SbertDistillArgs(att_scaling=scaling, att_query_mask=False)
    _, named = distillation_losses(student, batch, original, fixed.layout)
    assert abs(float(named["attention"]) / wide["attention"] - 1) > 1e-3  # padding asks too


def test_scalings_are_heads_and_keys_apart(teacher, rows):
    """Both directions have their own number of keys: 22 there, 14 back."""
    student = student_of(teacher.folder)
    batch = batch_of(teacher, teacher.encode(rows))
    values = {}
    for side in ("first_to_second", "second_to_first"):
        one_way = dict(batch)
        other = "second_to_first" if side == "first_to_second" else "first_to_second"
        one_way[other] = virtual_scores(student, batch)[2 if side == "first_to_second" else 1]
        for scaling in ("mean", "sum"):
            args = SbertDistillArgs(att_scaling=scaling, kd_weight_att=1.0)
            values[side, scaling] = float(distillation_losses(student, one_way, args, teacher.layout)[1]["attention"])
    assert values["first_to_second", "sum"] == pytest.approx(4 * 22 * values["first_to_second", "mean"], rel=1e-5)
    assert values["second_to_first", "sum"] == pytest.approx(4 * 14 * values["second_to_first", "mean"], rel=1e-5)


def test_no_loss_where_queries_and_keys_are_the_teachers(home, teach, rows, tmp_path):
    """Of one layer, with the same embeddings wherever a token stands, queries and keys do not depend on the layout."""
    folder = make_bert_folder(home / "one layer", layers=1)
    bert = load_bert(folder)
    with paddle.no_grad():
        for table in (bert.embeddings.position_embeddings, bert.embeddings.token_type_embeddings):
            table.weight.set_value(paddle.zeros_like(table.weight))
    save_pair_bert(
        BertForPairs(bert, 2), tmp_path / "pairs", WordPiece.from_folder(folder), ("0", "1"), PairLayout(16, 24)
    )
    teacher = teach(tmp_path / "pairs")
    batch = batch_of(teacher, teacher.encode(rows), (1,))
    args = SbertDistillArgs(att_scaling="sum", kd_weight_att=1.0)
    student = student_of(tmp_path / "pairs")
    assert float(distillation_losses(student, batch, args, teacher.layout)[1]["attention"]) < 1e-9
    with paddle.no_grad():
        query = student.encoder.encoder.layers[0].self_attn.q_proj
        query.weight.set_value(query.weight * 1.5)
    assert float(distillation_losses(student, batch, args, teacher.layout)[1]["attention"]) > 1e-4


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def crossed(student, batch):
    """q k^T / sqrt(d) from the first text to the second and back, by layer, in float64 from each tower's states."""
    found = {}
    for side, keep in (("a", student.query_states), ("b", student.document_states)):
        with Taps(student.encoder) as taps, paddle.no_grad():
            keep(batch[f"input_ids_{side}"], batch[f"mask_{side}"], batch[f"positions_{side}"])
        for i, layer in enumerate(student.encoder.encoder.layers):
            state = taps.hidden[i].numpy().astype(np.float64)[:, 1:-1]
            for name in ("q_proj", "k_proj"):
                own = getattr(layer.self_attn, name)
                x = state @ own.weight.numpy() + own.bias.numpy()
                found[side, name, i] = x.reshape(*x.shape[:2], 4, 8).swapaxes(1, 2)
    return [
        [found[a, "q_proj", i] @ found[b, "k_proj", i].swapaxes(2, 3) / np.sqrt(8) for i in range(2)]
        for a, b in ("ab", "ba")
    ]


def sliced(teacher, batch):
    """The teacher's logits, and the parts of its joint scores between the texts, by layer, in float64."""
    with Taps(teacher.model, scores=True) as taps, paddle.no_grad():
        logits = data.joint_answer(teacher.model)(batch)
    a, b = batch["input_ids_a"].shape[1] - 2, batch["input_ids_b"].shape[1] - 2
    first, second = slice(1, a + 1), slice(a + 2, a + 2 + b)
    scores = [layer.numpy().astype(np.float64) for layer in taps.scores]
    there, back = ([s[:, :, rows, keys] for s in scores] for rows, keys in ((first, second), (second, first)))
    return logits.numpy().astype(np.float64), there, back


def attention_by_hand(student, teacher, batch, scaling):
    """Pair by pair over its real tokens alone; the texts have 14 and 22 places."""
    ours, (_, *theirs) = crossed(student, batch), sliced(teacher, batch)
    lengths = [batch[f"mask_{side}"].numpy()[:, 1:-1].sum(axis=1).astype(int) for side in "ab"]
    total = 0.0
    for mine, other, asking, asked, places in zip(ours, theirs, lengths, lengths[::-1], (22, 14), strict=True):
        for s, t in zip(mine, other, strict=True):
            for i, (n, m) in enumerate(zip(asking, asked, strict=True)):
                squares = (softmax(s[i, :, :n, :m]) - softmax(t[i, :, :n, :m])) ** 2
                each = squares.sum(axis=(0, 2)).mean() / (4 * places if scaling == "mean" else 1)
                total += each / (2 * len(asking))  # of two layers
    return total


def logit_terms(s, t):
    p, q = softmax(t), softmax(s)
    return {"kl": (p * np.log(p / q)).sum(-1).mean(), "mse": ((s - t) ** 2).mean()}


@pytest.fixture
def unlike(tmp_path):
    """A student that starts from other weights than the teacher's."""
    return student_of(make_bert_folder(tmp_path / "unlike", layers=2, seed=3))


def test_virtual_scores_are_those_of_each_layers_own_states(teacher, unlike, rows):
    batch = batch_of(teacher, teacher.encode(rows))
    _, *found = virtual_scores(unlike, batch)
    for mine, expected in zip(found, crossed(unlike, batch), strict=True):
        for got, want in zip(mine, expected, strict=True):
            np.testing.assert_allclose(got.numpy(), want, atol=1e-4)
        assert np.abs(expected[0] - expected[1]).max() > 0.1


@pytest.mark.parametrize("scaling", ["mean", "sum"])
@pytest.mark.parametrize("soft", ["kl", "mse"])
def test_the_losses_by_hand(soft, scaling, teacher, unlike, rows):
    batch = batch_of(teacher, teacher.encode(rows))
    chosen = {f"use_kd_logit_{soft}": True}
    args = SbertDistillArgs(att_scaling=scaling, kd_weight_att=3.0, kd_weight_logit=0.7, **chosen)
    logits, named = distillation_losses(unlike, batch, args, teacher.layout)
    assert float(named["attention"]) == pytest.approx(3 * attention_by_hand(unlike, teacher, batch, scaling), rel=1e-4)
    expected = logit_terms(logits.numpy().astype(np.float64), sliced(teacher, batch)[0])[soft]
    assert float(named["teacher"]) == pytest.approx(0.7 * expected, rel=1e-4)


@pytest.mark.parametrize("soft", ["kl", "mse"])
def test_the_logged_losses_by_hand(soft, teacher, still, data_dir, tmp_path):
    """All rows in one batch with nothing learned: the recipe gives each layer its own part of the teacher."""
    more = ("--learning_rate", "1e-30", "--batch_size", 96, "--logging_steps", 1, "--skip_teacher_check", "true")
    more += ("--kd_weight_att", 5, "--kd_weight_logit", 0.3, f"--use_kd_logit_{soft}", "true")
    folder = sbert_distill.main(learning(data_dir, still, tmp_path / "run", "MRPC", *more))
    student = load_dual_encoder(folder)
    student.eval()
    task = get_task("MRPC")
    rows = load_rows(TaskOptions(task_name="MRPC", data_dir=str(data_dir)), task, "train")
    batch = tensors(teacher.encode(rows).pad(np.arange(96)))
    s, t = student(batch).numpy().astype(np.float64), sliced(teacher, batch)[0]
    expected = {
        "label": -np.log(softmax(s)[np.arange(96), rows.labels]).mean(),
        "attention": 5 * attention_by_hand(student, teacher, batch, "mean"),
        "teacher": 0.3 * logit_terms(s, t)[soft],
    }
    (row,) = [row for row in metrics(folder) if "losses" in row]
    assert row["losses"] == pytest.approx(expected, rel=1e-3)


def test_the_gradient_is_the_students_alone(teacher, rows):
    student = student_of(teacher.folder)
    batch = batch_of(teacher, teacher.encode(rows))
    for value in (batch["logits"], *batch["first_to_second"], *batch["second_to_first"]):
        value.stop_gradient = False
    args = SbertDistillArgs(use_kd_logit_kl=True)
    _, named = distillation_losses(student, batch, args, teacher.layout)
    assert named.keys() == {"attention", "teacher"}
    named["attention"].backward()
    attention = student.encoder.encoder.layers[1].self_attn
    assert all(np.abs(p.weight.grad.numpy()).max() > 0 for p in (attention.q_proj, attention.k_proj))
    assert attention.v_proj.weight.grad is None and student.classifier[1].weight.grad is None
    assert all(parameter.grad is None for parameter in teacher.model.parameters())
    assert all(x.grad is None for x in (batch["logits"], *batch["first_to_second"], *batch["second_to_first"]))


@pytest.mark.parametrize("model_type", ["late_fusion", "deformer", "dipair"])
def test_the_layers_that_read_the_texts_apart(model_type, still):
    layers = taught_layers(student_of(still, model_type))
    assert layers == ((1,) if model_type == "deformer" else (1, 2))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_text_is_read_alone_as_in_training(model_type, teacher, rows):
    """The states that are stored of a document are those that the losses have seen, and all give the same logits."""
    student = student_of(teacher.folder, model_type)
    batch = tensors(teacher.encode(rows).pad(np.arange(12)))
    with paddle.no_grad():
        expected = student(batch).numpy()
        sides = []
        for text, length, read in ((rows.text_a, 16, student.query_states), (rows.text_b, 24, student.document_states)):
            encoded = teacher.wordpiece.encode(text, None, length)
            alone = tensors(tower_inputs(encoded, np.arange(12), length, teacher.wordpiece.pad_id))
            sides += [read(alone["input_ids"], alone["mask"], alone["positions"]), alone["mask"]]
        np.testing.assert_allclose(student.score(*sides).numpy(), expected, atol=1e-5)


# Runs.


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_type_of_student(model_type, data_dir, pair_teachers, home, tmp_path):
    resnet = ("--use_resnet_predict", "true") if model_type == "late_fusion" else ()
    more = ("--model_type", model_type, "--max_steps", 1, "--use_kd_logit_kl", "true", *resnet)
    more += ("--cache_dir", home / "cache")
    folder = sbert_distill.main(learning(data_dir, pair_teachers("MRPC"), tmp_path / "run", "MRPC", *more))
    assert metrics(folder)[0]["losses"].keys() == {"label", "attention", "teacher"}
    student = load_dual_encoder(folder)
    assert (student.model_type, student.labels, student.lengths) == (model_type, ("0", "1"), (14, 18))
    result = read(folder / "results_eval.json")
    assert result["parameters"] == sum(p.size for p in student.parameters()) and result["rows"] == 48


def test_regression_and_control(data_dir, pair_teachers, tmp_path, capsys):
    more = ("--use_kd_logit_mse", "true", "--control", "--learning_rate", "1e-30", "--logging_steps", 1)
    folder = sbert_distill.main(learning(data_dir, pair_teachers("STS-B"), tmp_path / "run", "STS-B", *more))
    assert capsys.readouterr().out.splitlines()[-1].startswith("control, pearson_spearman: ")
    alone = folder / "control" / "alone_seed-42"
    ours, theirs = (load_tensors(path / "model.safetensors") for path in (folder, alone))
    assert all(np.allclose(ours[name], theirs[name], rtol=0, atol=1e-20) for name in ours)
    for a, b in zip(metrics(folder), metrics(alone), strict=True):  # the same batches, step by step
        if "losses" in a:
            assert b["losses"] == {"label": pytest.approx(a["losses"]["label"], rel=1e-5)}
            assert a["losses"].keys() == {"label", "attention", "teacher"}


def test_the_original_form_pads_to_the_full_lengths(data_dir, pair_teachers, tmp_path, monkeypatch):
    teacher = pair_teachers("MRPC")  # made before widths are noted: its own training is not meant
    widths = []
    lay_out = Pairs.lay_out

    def noted(self, *values, **more):
        batch = lay_out(self, *values, **more)
        widths.append((batch["input_ids_a"].shape[1], batch["input_ids_b"].shape[1]))
        return batch

    monkeypatch.setattr(Pairs, "lay_out", noted)
    for flags in (("--att_query_mask", "false"), ("--plain_mean", "true")):
        widths.clear()
        argv = learning(data_dir, teacher, tmp_path / flags[0], "MRPC", "--max_steps", 1, *flags)
        sbert_distill.main(argv)
        assert set(widths) == {(14, 18)}
    widths.clear()
    sbert_distill.main(learning(data_dir, teacher, tmp_path / "free", "MRPC", "--max_steps", 1))
    assert len(set(widths)) > 1 and max(b for _, b in widths) < 18


def test_interrupted_and_continued(data_dir, encoder, pair_teachers, tmp_path, monkeypatch):
    def teacher_argv(name):
        more = ("--save_steps", 1, "--logging_steps", 3, "--num_train_epochs", 1)
        return teaching(data_dir, encoder, tmp_path / name, "MRPC", *more)

    def student_argv(name):
        more = ("--save_steps", 1, "--logging_steps", 3, "--num_train_epochs", 2, "--use_kd_logit_mse", "true")
        return learning(data_dir, pair_teachers("MRPC"), tmp_path / f"student {name}", "MRPC", *more)

    for main, argv in ((run_classifier_bipartition.main, teacher_argv), (sbert_distill.main, student_argv)):
        interrupted(main, argv("run"), 5, monkeypatch)
        run, whole = main(argv("run")), main(argv("whole"))
        assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


# The published commands.


def published(text, **places):
    """Its flags, with places in the variables' stead."""
    for name, place in places.items():
        text = text.replace(f"${name}", str(place).replace(" ", "\0"))
    return [word.replace("\0", " ") for word in text.split()]


def test_published_commands_are_parsed():
    first, second = (parse(BipartitionArgs, published(text)) for text in (TEACHER_MNLI, TEACHER_BOOLQ))
    assert (first.task_name, first.lengths, first.batch_size, first.num_train_epochs) == ("mnli", (130, 130), 40, 6)
    assert (second.lengths, second.batch_size, second.num_train_epochs) == ((64, 328), 28, 30)
    assert first.init_checkpoint == "$BERT_BASE_DIR/bert_model.ckpt" and first.pooling_strategy == "mean"
    qqp, rte = (parse(SbertDistillArgs, published(text)) for text in (STUDENT_QQP, STUDENT_RTE))
    assert (qqp.lengths, qqp.batch_size, qqp.num_train_epochs) == ((130, 130), 32, 6)
    assert (rte.lengths, rte.batch_size, rte.num_train_epochs) == ((64, 328), 28, 30)
    assert qqp.teacher_path == "$TEACHER_MODEL_DIR/model.ckpt-46000" and isinstance(qqp.num_train_epochs, int)
    for args in (qqp, rte):
        assert (args.model_type, args.use_resnet_predict, args.use_kd_att) == ("late_fusion", True, True)
        assert (args.kd_weight_att, args.kd_weight_logit, args.learning_rate) == (700, 0.4, 5e-5)
        assert not (args.use_kd_logit_mse or args.use_kd_logit_kl or args.fixed)
        assert sbert_distill.run_name(args).startswith("late_fusion_att-700_epoch-")


def jsonl(path, classes, rows=12, seed=0):
    """Rows as the published data have them."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(FILLERS + NOUNS, rng.integers(1, 9))) for _ in range(2 * rows)]
    lines = [
        json.dumps({"id": str(i), "seq1": texts[2 * i], "seq2": texts[2 * i + 1], "label": {"cls": i % classes}})
        for i in range(rows)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def datasets(home):
    """The four tasks in the published folders."""
    root = home / "datasets"
    for task, classes, dev in (("mnli", 3, "dev"), ("qqp", 2, "dev"), ("rte", 2, "dev"), ("boolq", 2, "val")):
        jsonl(root / task / "train.jsonl", classes)
        jsonl(root / task / f"{dev}.jsonl", classes, seed=1)
    return root


@pytest.fixture(scope="session")
def base(home):
    """A BERT of one layer with the positions of BERT-base, beside Google's name for its config."""
    folder = make_bert_folder(home / "base", layers=1)
    config = read_json(folder / "config.json") | {"max_position_embeddings": 512}
    weights = load_tensors(folder / "model.safetensors")
    table = "bert.embeddings.position_embeddings.weight"
    weights[table] = np.tile(weights[table], (8, 1))
    weights = {name: array for name, array in weights.items() if not name.startswith("classifier")}
    save_tensors(folder / "model.safetensors", weights)
    for name in ("config.json", "bert_config.json"):
        write_json(folder / name, config | {"architectures": ["BertModel"]})
    return folder


@pytest.mark.parametrize(
    ("teaching", "distilling", "tasks"),
    [(TEACHER_MNLI, STUDENT_QQP, ("mnli", "qqp")), (TEACHER_BOOLQ, STUDENT_RTE, ("boolq", "rte"))],
)
def test_published_commands_run(teaching, distilling, tasks, datasets, base, tmp_path):
    teachers = {}
    one_epoch = ("--num_train_epochs", "1", "--cache_dir", str(tmp_path / "cache"))
    for task in tasks:
        places = {"MY_DATASET": datasets / task, "BERT_BASE_DIR": base, "OUTPUT": tmp_path / f"teacher {task}"}
        argv = published(teaching.replace("bert_model.ckpt", "model.safetensors"), **places)
        teachers[task] = run_classifier_bipartition.main([*argv, "--task_name", task, *one_epoch])
        assert read(teachers[task] / "results_eval.json")["rows"] == 12
    task = tasks[1]
    places = {"MY_DATASET": datasets / task, "BERT_MODEL_DIR": base, "OUTPUT": tmp_path / "student"}
    text = distilling.replace("bert_model.ckpt", "model.safetensors")
    for old in ("model.ckpt-46000", "model.ckpt-2000"):
        text = text.replace(old, "model.safetensors")
    argv = published(text, TEACHER_MODEL_DIR=teachers[task], **places)
    folder = sbert_distill.main([*argv, *one_epoch, "--skip_teacher_check", "true"])
    assert metrics(folder)[0]["losses"].keys() == {"label", "attention"}
    assert load_dual_encoder(folder).lengths == ((130, 130) if task == "qqp" else (64, 328))


def test_models_of_published_pairs_are_used_by_the_tools(datasets, base, tmp_path, monkeypatch):
    no_clock(monkeypatch)
    lengths = ("--max_seq_length_query", 12, "--max_seq_length_doc", 16, "--num_train_epochs", 1)
    data_dir = datasets / "mnli"
    teacher = run_classifier_bipartition.main(teaching(data_dir, base, tmp_path / "teacher", "mnli", *lengths))
    more = ("--skip_teacher_check", "true")
    student = sbert_distill.main(learning(data_dir, teacher, tmp_path / "student", "mnli", *more))
    flags = ("--task_name", "mnli", "--data_dir", datasets)
    for folder in (teacher, student):
        before = load_predictions(folder)["dev_matched"]
        found = evaluate.main(words(folder, *flags))
        assert found["dev_matched"]["rows"] == 12 and "rows_not_in_train" in found["dev_matched"]
        after = load_predictions(folder)
        assert list(after) == ["dev_matched"]
        np.testing.assert_array_equal(after["dev_matched"].labels, before.labels)
        np.testing.assert_allclose(after["dev_matched"].logits, before.logits, atol=1e-4)
    out = ("--rounds", 1, "--output_dir", tmp_path)
    result = compare.main(words("--folders", teacher, student, *flags, *out))
    assert [list(row["scores"]) for row in result["models"]] == [["MNLI"], ["MNLI"]]
    # Its run.yaml says where the rows are.
    task, rows = export.load_real_rows(parse(export.ExportArgs, words(student)), read_run(student))
    assert (task.name, rows.source) == ("MNLI", str(data_dir / "dev.jsonl")) and len(rows) == 12


# Data.


def load(task, root, *more):
    return data.load_pairs(parse(BipartitionArgs, words("--task_name", task, "--data_dir", root, *more)))


def test_jsonl_folders(datasets):
    for root in (datasets, datasets / "mnli"):
        task, rows = load("mnli", root)
        assert (task.name, task.dev_splits, task.labels[0]) == ("MNLI", ("dev_matched",), "contradiction")
        assert rows["train"].labels.tolist() == [0, 1, 2] * 4 and rows["dev_matched"].source.endswith("dev.jsonl")
    assert load("boolq", datasets)[1]["dev"].source.endswith("val.jsonl")


def test_glue_and_own_files(data_dir, tmp_path):
    task, rows = load("MRPC", data_dir)
    assert len(rows["train"]) == 96 and task.dev_splits == ("dev",)
    lines = ["text_a\ttext_b\tlabel", "a film\tthe film\tyes", "a plot\tthe cast\tno"]
    (tmp_path / "own.tsv").write_text("\n".join(lines) + "\n")
    own = ("--train_file", tmp_path / "own.tsv", "--dev_file", tmp_path / "own.tsv")
    task, rows = data.load_pairs(parse(BipartitionArgs, words(*own)))
    assert task.labels == ("no", "yes") and rows["dev"].text_b == ["the film", "the cast"]


@pytest.mark.parametrize(
    ("name", "dev", "classes"),
    [("MNLI", {"dev_matched": 6, "dev_mismatched": 7}, 3), ("QQP", {"dev": 6}, 2), ("BoolQ", {"dev": 6}, 2)],
)
def test_official_files(name, dev, classes, tmp_path):
    task, rows = load(name, make_task_data(tmp_path, name))
    assert task == get_task(name) and {split: len(rows[split]) for split in rows} == {"train": 12} | dev
    for found in rows.values():
        assert found.labels.tolist() == [i % classes for i in range(len(found))]
        assert all(found.text_a) and found.text_a != found.text_b
    assert [i for i, text in enumerate(rows["train"].text_b) if not text] == ([1] if name == "QQP" else [])
    assert rows["dev" if "dev" in dev else "dev_matched"].source.endswith(
        {"MNLI": "MNLI/dev_matched.tsv", "QQP": "QQP/dev.tsv", "BoolQ": "BoolQ/val.jsonl"}[name]
    )


def test_own_pairs_from_end_to_end(encoder, tmp_path):
    classes = ("same", "other", "open")
    for split, n in (("train", 12), ("dev", 6)):
        lines = [f'"a {NOUNS[i % 10]}, {split}",the {NOUNS[-1 - i % 10]},{classes[i % 3]}' for i in range(n)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["question,sentence,relation", *lines]) + "\n")
    own = ("--train_file", tmp_path / "train.csv", "--dev_file", tmp_path / "dev.csv", "--label_column", "relation")
    short = (*own, "--max_steps", 2)
    teacher = run_classifier_bipartition.main(teaching(tmp_path, encoder, tmp_path / "teacher", "own", *short))
    assert read(teacher / "config.json")["id2label"] == {"0": "open", "1": "other", "2": "same"}
    argv = learning(tmp_path, teacher, tmp_path / "run", "own", *short, "--skip_teacher_check", "true")
    folder = sbert_distill.main(argv)
    student, facts, result = load_dual_encoder(folder), read(folder / "run.json"), read(folder / "results_eval.json")
    assert (student.labels, student.lengths) == (("open", "other", "same"), (14, 18))
    assert (facts["train_rows"], facts["steps"], result["rows"], result["metric"]) == (12, 2, 6, "accuracy")
    found = load_predictions(folder)["dev"]
    assert found.labels.tolist() == [2, 1, 0, 2, 1, 0] and found.logits.shape == (6, 3)
    assert result["accuracy"] == pytest.approx((found.logits.argmax(axis=1) == found.labels).mean())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"seq1": "a", "seq2": "b", "label": {"cls": 2}}', ":3: unknown label '2' (known: 0, 1)"),
        ('{"seq1": "a", "seq2": "b", "label": {"cls": "entailment"}}', ":3: unknown label 'entailment'"),
        ('{"seq1": "a", "seq2": "b", "label": 1}', ":3: no key 'label.cls'"),
        ('{"seq1": "a", "seq2": "b", "label": {"class": 1}}', ":3: no key 'label.cls'"),
        ('{"seq1": "a", "label": {"cls": 1}}', ":3: no key 'seq2' (keys found: seq1, label)"),
        ('{"seq1": "a", "seq2": "b", "label"', ":3: not valid JSON"),
        ('{"seq1": "a", "seq2": ["b"], "label": {"cls": 1}}', ":3: 'seq2' is neither text nor a number"),
        ('{"seq1": "a", "seq2": " ", "label": {"cls": 1}}', ":3: the text in 'seq2' is empty"),
    ],
)
def test_a_bad_row_is_named(row, message, tmp_path):
    path = jsonl(tmp_path / "rte" / "train.jsonl", 2, rows=2)
    jsonl(tmp_path / "rte" / "dev.jsonl", 2)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(UserError) as error:
        load("rte", tmp_path)
    assert str(error.value).startswith(f"{path}{message}") and "\n" not in str(error.value)


def test_what_is_missing_is_named(datasets, tmp_path):
    jsonl(tmp_path / "rte" / "train.jsonl", 2)
    with pytest.raises(UserError, match="val.jsonl: no such file, nor dev.jsonl beside it"):
        load("rte", tmp_path)
    with pytest.raises(UserError, match="--task_name SST-2: its rows have one text"):
        load("SST-2", datasets)
    own = tmp_path / "own.tsv"
    own.write_text("text\tother\tlabel\na film\tthe film\tyes\na plot\tthe cast\tno\n")
    with pytest.raises(UserError, match="own.tsv: no second text; name its column by --text_pair_column"):
        data.load_pairs(parse(BipartitionArgs, words("--train_file", own, "--dev_file", own)))


def test_a_file_of_jsonl_with_other_keys_is_named(tmp_path):
    file = jsonl(tmp_path / "rte" / "train.jsonl", 2)
    jsonl(tmp_path / "rte" / "dev.jsonl", 2)
    file.write_text(file.read_text().replace("seq1", "seq_1"))
    for root in (tmp_path, tmp_path / "rte"):
        with pytest.raises(UserError, match=r"rte/train.jsonl:1: no key 'seq1' \(keys found: id, seq_1, seq2, label\)"):
            load("rte", root)
    header, row = "index\tsentence1\tsentence2\tlabel\n", "0\ta film\tthe film\tentailment\n"
    for split in ("train", "dev"):
        (tmp_path / "rte" / f"{split}.tsv").write_text(header + row)
    assert load("rte", tmp_path)[1]["train"].text_a == ["a film"]  # GLUE's own files beside it


def test_another_tasks_folder_is_refused(datasets):
    with pytest.raises(UserError, match="rte: the folder of RTE, but the task is QQP"):
        load("qqp", datasets / "rte")


# Refusals.


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--max_seq_length 260", "--max_seq_length 260: two texts of one length make an odd number, such as 261"),
        ("--max_seq_length_query 64", "give both"),
        ("--max_seq_length_query 64 --max_seq_length_doc 328 --max_seq_length_bert 259", "tokens make 391"),
        ("--max_seq_length_bert 259 --max_seq_length_sbert 128", "texts of 128 and 128 tokens make 255"),
        ("--max_seq_length_query 64 --max_seq_length_doc 328 --max_seq_length_sbert 130", "leave it out beside"),
        ("--max_seq_length_query 2 --max_seq_length_doc 9", "must be at least 3"),
        ("--num_train_epochs 2.5", "must be a whole number"),
        ("--do_train false", "--do_train false"),
        ("--do_eval false", "--do_eval false: the dev rows choose"),
        ("--do_predict true", "--do_predict true: test rows are not answered here"),
        ("--test_flie_name rows.tsv", "--test_flie_name rows.tsv"),
    ],
)
def test_flags_of_both_that_cannot_work(flags, message):
    for args in (BipartitionArgs, SbertDistillArgs):
        with pytest.raises(UserError, match=message):
            parse(args, flags.split())


@pytest.mark.parametrize("flag", ["use_all_layer_emb", "use_weighted_att", "use_att_head"])
def test_what_did_not_help_is_refused(flag):
    assert not getattr(parse(SbertDistillArgs, [f"--{flag}=false"]), flag)
    with pytest.raises(UserError, match=f"--{flag} true: .* did not help, as the published commands say"):
        parse(SbertDistillArgs, [f"--{flag}=true"])


def test_what_cannot_work_is_refused(data_dir, encoder, teachers, pair_teachers, tmp_path):
    fine = pair_teachers("MRPC")

    def line(*flags, teacher=fine, task="MRPC"):
        return refused(sbert_distill.main, learning(data_dir, teacher, tmp_path / "run", task, *flags), tmp_path)

    sbert_distill.main(learning(data_dir, fine, tmp_path / "warm", "MRPC", "--max_steps", 1))
    with pytest.raises(UserError, match="--teacher_path is needed"):
        sbert_distill.main([])
    assert line("--use_kd_att", "false").startswith("--use_kd_att false, and neither")
    assert "choose one" in line("--use_kd_logit_mse", "true", "--use_kd_logit_kl", "true")
    assert "is a score and has no classes" in line("--use_kd_logit_kl", "true", task="STS-B")
    assert "reads texts of 14 and 18 tokens, the flags say 9 and 9" in line("--max_seq_length_bert", 17)
    assert "was trained to read pairs in another layout" in line(teacher=teachers("MRPC"))
    assert "its head has 2 outputs, the task needs 1" in line(task="STS-B")
    assert line("--model_type", "sbert", "--use_resnet_predict", "true").startswith(
        "--use_resnet_predict true belongs to"
    )
    assert (
        line("--kd_weight_att", 0) == "--kd_weight_att 0: the attention would not be learned; pass --use_kd_att false"
    )
    assert line("--kd_weight_logit", 0, "--use_kd_logit_mse", "true").startswith(
        "--kd_weight_logit 0: the logits would"
    )
    assert line("--pooling_strategy", "cls").startswith("--pooling_strategy cls: late_fusion compares all tokens")
    assert line("--model_type", "col", task="STS-B", teacher=pair_teachers("STS-B")).startswith(
        "--model_type col: its sums"
    )
    nowhere = tmp_path / "nowhere"  # flags are refused before a teacher is opened
    assert line("--plain_mean", "true", "--model_type", "col", teacher=nowhere).startswith("--plain_mean belongs to")
    shallow = make_bert_folder(tmp_path / "shallow", layers=1)
    assert "num_hidden_layers is 1, the teacher's 2" in line("--init_checkpoint_student", shallow)
    *tokens, last, first = (shallow / "vocab.txt").read_text().splitlines()
    (shallow / "vocab.txt").write_text("\n".join([*tokens, first, last]) + "\n")
    assert "its wordpieces are not those of the teacher" in line("--init_checkpoint_student", shallow)
    with pytest.MonkeyPatch.context() as patch:  # and before the teacher reads the dev rows
        patch.setattr(PairTeacher, "check", lambda *_: pytest.fail("read"))
        assert "its wordpieces" in line("--init_checkpoint_student", shallow)
    assert f"--vocab_file {shallow / 'vocab.txt'}: not the vocabulary" in line("--vocab_file", shallow / "vocab.txt")
    config = shallow / "config.json"
    assert "num_hidden_layers is 1, in" in line("--bert_config_file", config)

    long = teaching(data_dir, encoder, tmp_path / "long", "MRPC", "--max_seq_length_doc", 52)
    text = refused(run_classifier_bipartition.main, long, tmp_path)
    assert "texts of 14 and 52 tokens are read as 65" in text and "at most 64" in text


# TensorFlow checkpoints.


def google_variables(folder):
    """The weights of a model under the names of Google's release, with some of an optimizer."""
    inverse = (
        ("bert.embeddings.layer_norm.", "bert.embeddings.LayerNorm."), ("encoder.layers.", "encoder.layer_"),
        ("self_attn.q_proj.", "attention.self.query."), ("self_attn.k_proj.", "attention.self.key."),
        ("self_attn.v_proj.", "attention.self.value."), ("self_attn.out_proj.", "attention.output.dense."),
        ("norm1.", "attention.output.LayerNorm."), ("linear1.", "intermediate.dense."), ("linear2.", "output.dense."),
        ("norm2.", "output.LayerNorm."), ("_embeddings.weight", "_embeddings"),
    )  # fmt: skip
    found = {"global_step": np.array(3)}
    for name, array in load_tensors(folder / "model.safetensors").items():
        if name.startswith("classifier."):
            head = {"classifier.weight": ("output_weights", array.T), "classifier.bias": ("output_bias", array)}
            found[head[name][0]] = head[name][1]
            continue
        for ours, theirs in inverse:
            name = name.replace(ours, theirs)
        norm = "LayerNorm" in name
        name = name.replace(".weight", ".gamma" if norm else ".kernel").replace(".bias", ".beta" if norm else ".bias")
        found[name.replace(".", "/")] = array
        found[name.replace(".", "/") + "/adam_m"] = np.zeros_like(array)
    assert "bert/encoder/layer_0/attention/output/LayerNorm/gamma" in found and "bert/pooler/dense/kernel" in found
    return found


def checkpoint(home, folder):
    """Flags for the release that holds this model's weights."""
    home.mkdir()
    for name in ("index", "data-00000-of-00001"):
        (home / f"bert_model.ckpt.{name}").write_text("checked by its reader")
    sizes = {key: value for key, value in read_json(folder / "config.json").items() if "_id" not in key}
    del sizes["architectures"], sizes["model_type"]
    write_json(
        home / "bert_config.json", {key: value for key, value in sizes.items() if key not in ("pairs", "id2label")}
    )
    shutil.copy(folder / "vocab.txt", home)
    return ("--bert_config_file", home / "bert_config.json", "--vocab_file", home / "vocab.txt")


class Reader:
    """What tensorflow.train.load_checkpoint gives; tensorflow itself is not installed with this project."""

    def __init__(self, variables):
        self._variables = variables

    def get_variable_to_shape_map(self):
        return {name: list(array.shape) for name, array in self._variables.items()}

    def get_tensor(self, name):
        return self._variables[name]


def test_a_checkpoint_is_converted_once(data_dir, encoder, pair_teachers, tmp_path, monkeypatch):
    teacher = pair_teachers("MRPC")
    own = checkpoint(tmp_path / "google", teacher)
    reading = ("--max_seq_length_query", 14, "--max_seq_length_doc", 18, "--cache_dir", tmp_path / "cache")
    args = parse(SbertDistillArgs, words(*own, *reading))
    silent = parse(SbertDistillArgs, words(*own, "--cache_dir", tmp_path / "cache"))
    with pytest.raises(
        UserError, match="how long the texts were .*; give --max_seq_length_query and --max_seq_length_doc"
    ):
        data.find_start("--init_checkpoint_teacher", str(tmp_path / "google" / "bert_model.ckpt"), silent)
    prefix, calls = str(tmp_path / "google" / "bert_model.ckpt"), []
    variables = google_variables(teacher)
    fake = types.ModuleType("tensorflow")
    fake.train = types.SimpleNamespace(load_checkpoint=lambda named: (calls.append(named), Reader(variables))[1])
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    for _ in range(2):
        found = data.find_start("--init_checkpoint_teacher", prefix, args)
    assert calls == [prefix] and not list(found.folder.parent.glob(".*"))
    expected = load_pair_bert(teacher)[0].state_dict()
    model, layout = load_pair_bert(found.weights)
    assert (layout.first, layout.second, model.pooling) == (14, 18, "mean")
    assert all((value.numpy() == expected[name].numpy()).all() for name, value in model.state_dict().items())
    student = load_bert(found.weights)
    assert (student.pooler.dense.weight.numpy() == expected["bert.pooler.dense.weight"].numpy()).all()


# As much of tensorflow as is needed, for a process that another one starts; slow, so that ranks would meet.
FAKE_TENSORFLOW = """import os, time, types
from distill.tensors import load_tensors
class Reader:
    def __init__(self, prefix):
        with open(f"{prefix}.asked", "a") as asked:
            asked.write(os.environ["PADDLE_TRAINER_ID"])
        self.variables = load_tensors(f"{prefix}.safetensors")
        time.sleep(2)
    def get_variable_to_shape_map(self):
        return {name: list(array.shape) for name, array in self.variables.items()}
    def get_tensor(self, name):
        return self.variables[name]
train = types.SimpleNamespace(load_checkpoint=Reader)
"""


def test_one_rank_converts_and_all_use_it(data_dir, tmp_path):
    whole, prefix = make_bert_folder(tmp_path / "bert", layers=1), tmp_path / "google" / "bert_model.ckpt"
    own = checkpoint(tmp_path / "google", whole)
    variables = google_variables(whole)
    del variables["global_step"]
    save_tensors(f"{prefix}.safetensors", variables)
    (tmp_path / "tensorflow.py").write_text(FAKE_TENSORFLOW)
    more = ("--cache_dir", tmp_path / "cache", "--max_steps", 1)
    argv = teaching(data_dir, prefix, tmp_path / "run", "MRPC", *own, *more)
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "logs"))
    script = Path(run_classifier_bipartition.__file__)
    process = subprocess.run(
        [sys.executable, *launch, str(script), *argv], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{script.parents[1]}"},
    )  # fmt: skip
    logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("workerlog.*")))
    assert process.returncode == 0, process.stdout + process.stderr + logs
    assert Path(f"{prefix}.asked").read_text() == "0"
    assert read(tmp_path / "run" / "run.json")["finished"]
    (converted,) = (tmp_path / "cache" / "converted").iterdir()
    expected, found = (load_tensors(folder / "model.safetensors") for folder in (whole, converted))
    assert all((expected[name] == found[name]).all() for name in expected)


def test_a_checkpoint_without_tensorflow_is_refused(teachers, data_dir, tmp_path, monkeypatch):
    own = checkpoint(tmp_path / "google", teachers("MRPC"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    prefix = tmp_path / "google" / "bert_model.ckpt"
    cache = ("--cache_dir", tmp_path / "cache")
    line = functools.partial(refused, run_classifier_bipartition.main)
    argv = teaching(data_dir, prefix, tmp_path / "run", "MRPC", *own, *cache)
    assert line(argv, tmp_path).startswith(
        f"--init_checkpoint {prefix}: a TensorFlow checkpoint, which needs tensorflow"
    )
    argv = teaching(data_dir, prefix, tmp_path / "run", "MRPC", *cache)
    assert "give its --bert_config_file and --vocab_file too" in line(argv, tmp_path)
    argv = teaching(data_dir, tmp_path / "google" / "no.ckpt", tmp_path / "run", "MRPC", *own, *cache)
    assert "no.ckpt: no such folder" in line(argv, tmp_path)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="tensorflow is not installed here: `pip install tensorflow-cpu`",
)
def test_a_checkpoint_that_tensorflow_wrote(teachers, tmp_path):
    import tensorflow

    folder = teachers("MRPC")
    own = checkpoint(tmp_path / "google", folder)
    prefix = str(tmp_path / "google" / "bert_model.ckpt")
    variables = google_variables(folder)
    with tensorflow.Graph().as_default(), tensorflow.compat.v1.Session() as session:
        made = [tensorflow.compat.v1.get_variable(name, initializer=array) for name, array in variables.items()]
        session.run(tensorflow.compat.v1.global_variables_initializer())
        tensorflow.compat.v1.train.Saver(made).save(session, prefix)
    args = parse(BipartitionArgs, words(*own, "--cache_dir", tmp_path / "cache"))
    found = load_bert(data.find_start("--init_checkpoint", prefix, args).weights).state_dict()
    expected = load_bert(folder).state_dict()
    assert all((value.numpy() == found[name].numpy()).all() for name, value in expected.items())
