"""small.py and bert_distill.py from end to end, and what both models read of the same rows and copies."""

import shutil

import numpy as np
import paddle
import pytest
from safetensors.numpy import save_file

from distill.cli import parse
from distill.data.ragged import Ragged
from distill.data.readers import Rows, read_unlabelled
from distill.data.tasks import get_task, load_rows
from distill.data.vectors import reduce_table
from distill.data.wordpiece import WordPiece
from distill.data.words import segment
from distill.encoders.folder import word_embeddings
from distill.errors import UserError
from distill.evaluation.metrics import score
from distill.options import TaskOptions, TeacherOptions
from distill.teachers.teacher import Teacher
from distill.tensors import load_tensors
from distill_lstm import bert_distill, data, small
from distill_lstm.args import DistillArgs, StudentArgs
from models import bilstm
from models.bilstm import BiLSTMConfig
from tests.recipes.runs import lstm, metrics, read

STILL = ("--lr", "1e-30", "--num_train_epochs", 1)  # the weights stay what they were at the start, zeros within 1e-25


def task_rows(task, data_dir, split="train"):
    return load_rows(TaskOptions(task_name=task, data_dir=str(data_dir)), get_task(task), split)


# From end to end


@pytest.mark.parametrize("task", ["SST-2", "MRPC", "STS-B"])
def test_both_scripts(task, data_dir, teachers, tmp_path):
    common = ("--vocab_size", 106, "--use_pretrained_emb", "True")
    alone = small.main(lstm(data_dir, tmp_path / "alone", task, *common, "--model_name", teachers(task)))
    taught = ("--teacher_path", teachers(task) / "model_state.pdparams", "--cache_dir", tmp_path / "cache")
    distilled = bert_distill.main(lstm(data_dir, tmp_path / "distilled", task, *common, *taught))
    dev = task_rows(task, data_dir, "dev")
    for folder, losses in ((alone, {"label"}), (distilled, {"teacher"})):
        names = {"run.yaml", "run.json", "metrics.jsonl", "results_eval.json", "dev_predictions.tsv", "vdl"}
        names |= {"config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"}
        assert {path.name for path in folder.iterdir()} == names
        assert {name for row in metrics(folder) for name in row.get("losses", {})} == losses
        facts, result = read(folder / "run.json"), read(folder / "results_eval.json")
        assert facts["finished"] and facts["train_rows"] == 3 * 96 and facts["rows"] == 2 * 3 * 96
        student, reader = bilstm.load_student(folder)
        assert (student.config.labels, student.config.pair) == (get_task(task).labels, get_task(task).pair)
        logits = bilstm.predict(student, reader.texts(dev.text_a, dev.text_b), 16)
        found = score(logits, dev.labels, get_task(task))
        metric = get_task(task).metric
        assert (
            result[metric]
            == pytest.approx(found[metric], abs=1e-6)
            == max(row["dev"][metric] for row in metrics(folder) if "dev" in row)
        )
        assert result["parameters"] == sum(p.size for p in student.parameters())


def test_chinese_on_jieba_words(chinese, tmp_path):
    folder, teacher = chinese
    flags = (
        "--alpha",
        0.5,
        "--teacher_dir",
        teacher,
        "--cache_dir",
        tmp_path / "cache",
        "--skip_teacher_check",
        "true",
    )
    run = bert_distill.main(lstm(folder, tmp_path / "run", "senta", *flags))
    student, reader = bilstm.load_student(run)
    assert student.config.reads == "words" and student.config.language == "zh" and (run / "words.txt").is_file()
    assert {"好看", "电影", "非常"} <= set(reader.vocabulary.tokens)
    assert metrics(run)[0]["losses"].keys() == {"teacher", "label"}
    words = tmp_path / "subset.txt"
    words.write_text("[PAD]\n[UNK]\n好看\n难看\n电影\n", encoding="utf-8")
    alone = small.main(lstm(folder, tmp_path / "alone", "chnsenticorp", "--vocab_path", words, "--vocab_size", 4))
    assert bilstm.load_student(alone)[1].vocabulary.tokens == ["[PAD]", "[UNK]", "好看", "难看"]


def test_a_second_run_asks_the_teacher_nothing(data_dir, teachers, tmp_path, monkeypatch):
    flags = ("--teacher_path", teachers("SST-2"), "--cache_dir", tmp_path / "cache")
    first = bert_distill.main(lstm(data_dir, tmp_path / "first", "SST-2", *flags))
    assert read(first / "run.json")["teacher_hit_rate"] < 0.5
    monkeypatch.setattr(Teacher, "_forward", None)
    second = bert_distill.main(lstm(data_dir, tmp_path / "second", "SST-2", *flags, "--lr", "2e-2"))
    assert read(second / "run.json")["teacher_hit_rate"] == 1.0
    third = bert_distill.main(lstm(data_dir, tmp_path / "third", "SST-2", *flags))
    assert (third / "model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_finished_runs_are_left_alone(data_dir, teachers, tmp_path, capsys, monkeypatch):
    taught = ("--teacher_path", teachers("SST-2"), "--cache_dir", tmp_path / "cache")
    commands = [
        (small.main, lstm(data_dir, tmp_path / "alone", "SST-2", "--model_name", teachers("SST-2"))),
        (bert_distill.main, lstm(data_dir, tmp_path / "distilled", "SST-2", *taught)),
    ]
    folders = [main(argv) for main, argv in commands]
    before = [(folder / "run.json").read_bytes() for folder in folders]
    monkeypatch.setattr("distill.training.fit.fit", None)
    capsys.readouterr()
    assert [main(argv) for main, argv in commands] == folders
    assert capsys.readouterr().out.count("holds this run, finished") == 2
    assert [(folder / "run.json").read_bytes() for folder in folders] == before


# The losses


def first_losses(data_dir, teacher, folder, task, *more):
    """The named losses of the whole training set at the initial weights: one batch, nothing learned."""
    flags = (
        "--teacher_path",
        teacher,
        "--cache_dir",
        folder.parent / "cache",
        "--batch_size",
        1000,
        "--n_iter",
        0,
        *STILL,
    )
    bert_distill.main(lstm(data_dir, folder, task, *flags, *more))
    (row,) = [row for row in metrics(folder) if "losses" in row]
    return row["losses"]


@pytest.mark.parametrize("task", ["SST-2", "STS-B"])
def test_the_losses_are_those_of_equation_3(task, data_dir, teachers, tmp_path):
    losses = first_losses(data_dir, teachers(task), tmp_path / "run", task, "--alpha", 0.25)
    rows, student = task_rows(task, data_dir), bilstm.load_student(tmp_path / "run")
    s = bilstm.predict(student[0], student[1].texts(rows.text_a, rows.text_b), 16).astype(np.float64)
    options = TeacherOptions(cache_dir=str(tmp_path / "cache"))
    teacher = Teacher(teachers(task), get_task(task), 32, options)
    t = teacher.forward(teacher.encode(rows).pad(np.arange(len(rows))))["logits"].astype(np.float64)
    label = (s[:, 0] - rows.labels) ** 2
    if task == "SST-2":
        label = np.log(np.exp(s).sum(axis=1)) - s[np.arange(len(s)), rows.labels]
    assert losses == pytest.approx({"teacher": 0.25 * ((s - t) ** 2).mean(), "label": 0.75 * label.mean()}, rel=1e-4)


@pytest.mark.parametrize(("alpha", "names"), [(1, {"teacher"}), (0.5, {"teacher", "label"})])
def test_alpha_weights_the_teacher(alpha, names, data_dir, teachers, tmp_path):
    assert first_losses(data_dir, teachers("MRPC"), tmp_path / "run", "MRPC", "--alpha", alpha).keys() == names


def test_a_run_without_its_teacher_is_refused(data_dir, teachers, tmp_path):
    with pytest.raises(UserError, match=r"--alpha 0: alpha weights the teacher here.*0.0 is --alpha 1"):
        bert_distill.main(lstm(data_dir, tmp_path / "run", "SST-2", "--teacher_path", teachers("SST-2"), "--alpha", 0))


@pytest.mark.parametrize(("task", "line"), [("SST-2", "the plot is quite lovely"), ("STS-B", "a film\ta movie")])
def test_unlabelled_rows_have_the_teachers_loss_only(task, line, data_dir, teachers, tmp_path):
    (tmp_path / "more.txt").write_text(f"{line}\n" * 30)
    half = ("--alpha", 0.5)
    plain = first_losses(data_dir, teachers(task), tmp_path / "plain", task, *half)
    more = first_losses(
        data_dir, teachers(task), tmp_path / "more", task, *half, "--unlabelled_file", tmp_path / "more.txt"
    )
    assert more["label"] == pytest.approx(plain["label"], rel=1e-5)
    assert more["teacher"] != pytest.approx(plain["teacher"], rel=1e-3)
    rows = task_rows(task, data_dir).concat(read_unlabelled(tmp_path / "more.txt", task == "STS-B"))
    args = parse(DistillArgs, ["--task_name", task, "--n_iter", "3"])
    wordpiece = WordPiece.from_folder(teachers(task))
    labels = data.features(rows, data.make_reader(args, get_task(task), rows, wordpiece), wordpiece, args).labels
    unlabelled = np.isnan(labels) if task == "STS-B" else labels == -1
    assert unlabelled.sum() == 30 * 4 and unlabelled[96:126].all() and unlabelled[-90:].all()


def test_how_many_rows_are_cut_is_said(data_dir, encoder, capsys):
    args = parse(StudentArgs, ["--max_seq_length", "4"])
    wordpiece = WordPiece.from_folder(encoder)
    for rows, cut in (
        (Rows(["a film", "the plot is bad ."], None, None, "rows"), 1),
        (Rows(["a film", "a film", "a film"], ["the plot is bad .", "a", "the plot is bad ."], None, "rows"), 2),
    ):
        data.features(rows, data.make_reader(args, get_task("SST-2"), rows, wordpiece), None, args)
        expected = f"{cut} of {len(rows)} training rows are longer than --max_seq_length 4 and are cut\n"
        assert capsys.readouterr().out == expected


# Both models read the same copies


def decoded(tokens, rows):
    """Rows of ids as lists of tokens."""
    return [[tokens[i] for i in rows.values[a:b]] for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]


def both(task, rows, wordpiece, *flags, words=False):
    """(rows as the student reads them, as the teacher does, labels) as tokens; for each text of a pair a list."""
    args = parse(StudentArgs, ["--task_name", task, "--max_seq_length", "64", *map(str, flags)])
    data.reads_words(args, get_task(task))
    reader = data.make_reader(args, get_task(task), rows, None if words else wordpiece)
    made = data.features(rows, reader, wordpiece, args)
    teacher = [[wordpiece.tokens[i] for i in made.teacher.row(n)] for n in range(len(made.teacher))]
    student = [decoded(reader.vocabulary.tokens, side) for side in (made.student.a, made.student.b) if side is not None]
    return student, teacher, made.labels


@pytest.mark.parametrize("whole_words", [False, True])
def test_copies_of_wordpieces(whole_words, data_dir, encoder):
    rows, wordpiece, n = task_rows("SST-2", data_dir), WordPiece.from_folder(encoder), 96
    (student,), teacher, labels = both(
        "SST-2", rows, wordpiece, "--n_iter", 5, "--p_mask", 0.3, "--whole_word_mask", whole_words
    )
    assert len(student) == len(teacher) == len(labels) == 6 * n
    for read_by_student, read_by_teacher in zip(student, teacher, strict=True):
        assert read_by_teacher == ["[CLS]", *read_by_student, "[SEP]"]
    assert student[:n] == [
        [wordpiece.tokens[i] for i in row] for row in wordpiece.pieces(rows.text_a)
    ]  # unmodified, first
    np.testing.assert_array_equal(labels, np.concatenate([rows.labels, np.repeat(rows.labels, 5)]))
    masked = sum(row.count("[MASK]") for row in student[n:]) / sum(map(len, student[n:]))
    assert not any("[MASK]" in row for row in student[:n]) and 0.2 < masked < 0.4
    split = False
    for number, row in enumerate(student[n:]):
        source = student[number // 5] if not whole_words else words_of(student[number // 5])
        units = row if not whole_words else words_of(row)
        fits = [
            start for start in range(len(source) - len(units) + 1)
            if all(unit in ("[MASK]", source[start + i]) for i, unit in enumerate(units))
        ]  # fmt: skip
        assert fits, (source, units)
        split |= any(row[i] == "[MASK]" and row[i + 1].startswith("##") for i in range(len(row) - 1))
    assert split != whole_words  # a word is masked as a whole, or in part


def words_of(pieces):
    return " ".join(pieces).replace(" ##", "").split()


def test_copies_of_words_keep_their_capitals_for_a_teacher_that_reads_them(tmp_path):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Berlin", "berlin", "is", "Ärger", "arger", "here", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab))
    rows = Rows(["Berlin is here .", "Ärger is here ."], None, np.array([0, 1]), "rows")
    more = ("--n_iter", 3, "--p_mask", 0, "--p_ng", 0, "--tokens", "words")
    for lowercase, words in ((False, ("Berlin", "Ärger")), (True, ("berlin", "arger"))):
        (student,), teacher, _ = both("SST-2", rows, WordPiece(tmp_path / "vocab.txt", lowercase), *more, words=True)
        assert student == [[word, "is", "here", "."] for word in ["berlin", "arger"] + ["berlin"] * 3 + ["arger"] * 3]
        expected = [words[0], words[1], *[words[0]] * 3, *[words[1]] * 3]
        assert teacher == [["[CLS]", word, "is", "here", ".", "[SEP]"] for word in expected]


@pytest.mark.parametrize("p_ng", [0, 1])
def test_copies_of_chinese_words(p_ng, chinese):
    folder, bert = chinese
    rows, wordpiece = task_rows("senta", folder), WordPiece.from_folder(bert)
    (student,), teacher, labels = both(
        "senta", rows, wordpiece, "--n_iter", 4, "--p_mask", 0.2, "--p_ng", p_ng, words=True
    )
    n, sources = len(rows), segment(rows.text_a, "zh")
    assert student[:n] == sources and len(student) == len(teacher) == 5 * n
    assert teacher[:n] == [
        [wordpiece.tokens[i] for i in wordpiece.encode([text], None, 64).row(0)] for text in rows.text_a
    ]
    for read_by_student, read_by_teacher in zip(student[n:], teacher[n:], strict=True):
        pieces = [
            ["[UNK]"] if word == "[UNK]" else [wordpiece.tokens[i] for i in wordpiece.pieces([word])[0]]
            for word in read_by_student
        ]
        assert read_by_teacher == ["[CLS]", *(piece for word in pieces for piece in word), "[SEP]"]
    lengths = [len(row) for row in student[n:]]
    if p_ng:
        assert set(lengths) <= set(range(2, 11)) and max(lengths) > 6
    else:
        assert lengths == [len(source) for source in sources for _ in range(4)]
    np.testing.assert_array_equal(labels[n:], np.repeat(rows.labels, 4))


def test_pairs_keep_their_partner_and_are_never_cut(data_dir, encoder):
    rows, wordpiece, n = task_rows("MRPC", data_dir), WordPiece.from_folder(encoder), 96
    (a, b), teacher, _ = both("MRPC", rows, wordpiece, "--n_iter", 3, "--p_mask", 0.3, "--p_ng", 1)
    for i, read_by_teacher in enumerate(teacher):
        assert read_by_teacher == ["[CLS]", *a[i], "[SEP]", *b[i], "[SEP]"]
        source = i if i < n else (i - n) // 3
        for side in (a, b):
            assert len(side[i]) == len(side[source])
            assert all(now in (was, "[MASK]") for now, was in zip(side[i], side[source], strict=True))
    masks = [[[token == "[MASK]" for token in row[:3]] for row in side[n:]] for side in (a, b)]
    assert masks[0] != masks[1]  # independently


def test_words_are_replaced_by_words_of_their_class(data_dir, encoder, tmp_path):
    classes = {"film": "noun", "movie": "noun", "story": "noun", "good": "adj", "bad": "adj", "dull": "adj"}
    (tmp_path / "pos.txt").write_text("".join(f"{word}\t{tag}\n" for word, tag in classes.items()))
    rows, wordpiece = task_rows("SST-2", data_dir), WordPiece.from_folder(encoder)
    always = ("--whole_word_mask", "true", "--p_pos", 1, "--pos_file", tmp_path / "pos.txt", "--p_mask", 0, "--p_ng", 0)
    (student,), teacher, _ = both("SST-2", rows, wordpiece, "--n_iter", 4, *always)
    changed = 0
    for i, row in enumerate(student[96:]):
        assert teacher[96 + i] == ["[CLS]", *row, "[SEP]"]
        for now, was in zip(words_of(row), words_of(student[i // 4]), strict=True):
            assert classes.get(now) == classes.get(was) and (now == was or was in classes)
            changed += now != was
    assert changed > 50


# Where the student starts


@pytest.mark.parametrize("width", [8, 40])  # the table is 32 wide
def test_embeddings_are_the_teachers_table_by_pca(width, data_dir, teachers, tmp_path):
    teacher = teachers("SST-2")
    flags = (
        "--teacher_path",
        teacher,
        "--cache_dir",
        tmp_path / "cache",
        "--use_pretrained_emb",
        "true",
        "--n_iter",
        0,
        "--emb_dim",
        width,
    )
    run = bert_distill.main(lstm(data_dir, tmp_path / "run", "SST-2", *flags, *STILL))
    expected = reduce_table(word_embeddings(teacher), width, pad_id=0)
    np.testing.assert_allclose(
        load_tensors(run / "model.safetensors")["embedding.weight"], expected, rtol=0, atol=1e-25
    )
    assert not expected[0].any() and expected[:, :32].std() == pytest.approx(0.5, rel=0.02)


def test_embeddings_are_of_the_weight_file_that_was_named(data_dir, teachers, tmp_path):
    source, checkpoints = teachers("SST-2"), tmp_path / "ckpt"
    checkpoints.mkdir()
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        shutil.copy(source / name, checkpoints)
    weights = load_tensors(source / "model.safetensors")
    named, other = checkpoints / "step_200.safetensors", checkpoints / "model.safetensors"
    shutil.copy(source / "model.safetensors", named)
    table = next(name for name in weights if "word_embeddings" in name)
    save_file(weights | {table: weights[table][::-1].copy()}, other)
    flags = ("--teacher_path", named, "--cache_dir", tmp_path / "cache", "--use_pretrained_emb", "true", "--n_iter", 0)
    run = bert_distill.main(lstm(data_dir, tmp_path / "run", "SST-2", *flags, *STILL))
    tables = [reduce_table(word_embeddings(path), 8, pad_id=0) for path in (named, other)]
    found = load_tensors(run / "model.safetensors")["embedding.weight"]
    np.testing.assert_allclose(found, tables[0], rtol=0, atol=1e-25)
    assert np.abs(found - tables[1]).max() > 0.01


def test_embeddings_of_a_file(data_dir, tmp_path):
    words = {"film": [1, 2, 3], "good": [4, 5, 6], "unheard": [7, 8, 9]}
    (tmp_path / "vectors.txt").write_text("3 3\n" + "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in words.items()))
    flags = (
        "--tokens",
        "words",
        "--use_pretrained_emb",
        "true",
        "--embedding_name",
        tmp_path / "vectors.txt",
        "--emb_dim",
        3,
    )
    run = small.main(lstm(data_dir, tmp_path / "run", "SST-2", *flags, *STILL))
    tokens, table = (
        bilstm.load_student(run)[1].vocabulary.tokens,
        load_tensors(run / "model.safetensors")["embedding.weight"],
    )
    assert table.shape == (len(tokens), 3) and "unheard" not in tokens
    for word in ("film", "good"):
        assert table[tokens.index(word)].tolist() == words[word]
    assert not table[0].any() and np.abs(table[2:]).max() == 6 and np.abs(table[tokens.index("bad")]).max() < 1


def test_the_same_seed_starts_from_the_same_weights_with_and_without_teacher(data_dir, teachers, tmp_path):
    teacher = teachers("SST-2")
    taught = ("--teacher_path", teacher, "--cache_dir", tmp_path / "cache", *STILL)
    alone = small.main(lstm(data_dir, tmp_path / "alone", "SST-2", "--model_name", teacher, *STILL))
    distilled = bert_distill.main(lstm(data_dir, tmp_path / "distilled", "SST-2", *taught))
    other = bert_distill.main(lstm(data_dir, tmp_path / "other", "SST-2", *taught, "--seed", 7))
    flags = ("--model_name", teacher, "--use_pretrained_emb", "true", *STILL)
    reduced = small.main(lstm(data_dir, tmp_path / "reduced", "SST-2", *flags))
    start, *others = [load_tensors(folder / "model.safetensors") for folder in (alone, distilled, other, reduced)]
    same = [{name for name in start if np.abs(start[name] - weights[name]).max() < 1e-25} for weights in others]
    biases = {name for name in start if not np.abs(start[name]).max() > 1e-25}
    assert same == [set(start), biases, set(start) - {"embedding.weight"}] and len(biases) < len(start) / 2


# The model


def student(pair=False, labels=("0", "1", "2"), layers=1, dropout=0.0, seed=3):
    config = BiLSTMConfig(30, labels, pair, 5, 4, layers, dropout, init_scale=0.5)
    return bilstm.create(config, seed)


def ragged_texts(rows=40, pair=False, seed=0):
    rng = np.random.default_rng(seed)

    def side():
        return Ragged.from_lists([rng.integers(1, 30, rng.integers(1, 12)).tolist() for _ in range(rows)])

    return bilstm.Texts(side(), side() if pair else None)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sentence(weights, ids):
    """[last forward state; last backward state] of one text, by hand in float64; paddle's gates are i, f, g, o."""
    table, states = weights["embedding.weight"], []
    for ending, order in (("", ids), ("_reverse", ids[::-1])):
        w, u, b, c = (weights[f"lstm.{name}_l0{ending}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = cell = np.zeros(4)
        for i in order:
            gate_i, gate_f, g, gate_o = np.split(w @ table[i] + b + u @ h + c, 4)
            cell = sigmoid(gate_f) * cell + sigmoid(gate_i) * np.tanh(g)
            h = sigmoid(gate_o) * np.tanh(cell)
        states.append(h)
    return np.concatenate(states)


def float64(model):
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


def ids_of(rows, i):
    return rows.values[rows.offsets[i] : rows.offsets[i + 1]]


@pytest.mark.parametrize("pair", [False, True])
def test_golden_forward(pair):
    model, texts = student(pair), ragged_texts(12, pair)
    found, w = bilstm.predict(model, texts, 5), float64(model)
    for i in range(12):
        features = u = sentence(w, ids_of(texts.a, i))
        if pair:
            v = sentence(w, ids_of(texts.b, i))
            features = np.concatenate([u, v, u + v, np.abs(u - v)])
        hidden = np.tanh(features @ w["fc.weight"] + w["fc.bias"])
        np.testing.assert_allclose(found[i], hidden @ w["classifier.weight"] + w["classifier.bias"], atol=1e-5)


def test_two_texts_are_read_by_one_encoder():
    """With the texts exchanged u + v and |u - v| stay: a head that reads them alone cannot tell the order."""
    model, texts = student(pair=True), ragged_texts(20, True)
    exchanged = bilstm.Texts(texts.b, texts.a)
    assert np.abs(bilstm.predict(model, texts, 8) - bilstm.predict(model, exchanged, 8)).max() > 1e-3
    head = model.fc.weight.numpy()
    head[:16] = 0  # the rows of u and v, 8 each
    model.fc.weight.set_value(head)
    np.testing.assert_allclose(bilstm.predict(model, texts, 8), bilstm.predict(model, exchanged, 8), atol=1e-6)


@pytest.mark.parametrize(("pair", "layers"), [(False, 1), (True, 2)])
def test_batch_size_and_padding_change_nothing(pair, layers):
    model, texts = student(pair, layers=layers), ragged_texts(40, pair)
    alone = bilstm.predict(model, texts, 1)
    for batch_size in (7, 40):
        np.testing.assert_allclose(bilstm.predict(model, texts, batch_size), alone, atol=1e-6)
    model.eval()
    ids = np.array([[4, 9, 2]])
    padded = np.array([[4, 9, 2, 0, 0, 0], [5] * 6])
    with paddle.no_grad():
        short = model.encode(paddle.to_tensor(ids), paddle.to_tensor([3]))
        long = model.encode(paddle.to_tensor(padded), paddle.to_tensor([3, 6]))
    np.testing.assert_allclose(long.numpy()[0], short.numpy()[0], atol=1e-6)


def test_dropout_acts_with_one_layer_and_in_training_only():
    batch = {name: paddle.to_tensor(value) for name, value in ragged_texts(8).batch(np.arange(8)).items()}
    for dropout, differs in ((0.5, True), (0.0, False)):
        model = student(dropout=dropout)
        model.train()
        first, second = (model.logits(batch).numpy() for _ in range(2))
        assert (np.abs(first - second).max() > 1e-3) == differs
        model.eval()
        np.testing.assert_array_equal(model.logits(batch).numpy(), model.logits(batch).numpy())
        if not differs:
            np.testing.assert_allclose(first, model.logits(batch).numpy(), atol=1e-6)


def test_the_head_is_what_the_task_needs():
    assert [student(labels=labels).classifier.weight.shape[1] for labels in ((), ("0", "1"), ("a", "b", "c"))] == [
        1,
        2,
        3,
    ]
    assert (student().fc.weight.shape, student(pair=True).fc.weight.shape) == ([8, 4], [32, 4])
    names = {name.split(".")[0] for name in student(pair=True).state_dict()}
    assert names == {"embedding", "lstm", "fc", "classifier"}


@pytest.mark.parametrize("pair", [False, True])
def test_a_saved_student_is_the_same_student(pair, encoder, tmp_path):
    wordpiece = WordPiece.from_folder(encoder)
    config = BiLSTMConfig(wordpiece.size, ("no", "yes"), pair, 6, 5, 2, 0.3, max_length=8)
    model, reader = bilstm.create(config, 1), bilstm.Reader(wordpiece, "en", 8)
    bilstm.save_student(tmp_path, model, reader)
    loaded, its_reader = bilstm.load_student(tmp_path)
    assert loaded.config == config and not loaded.training
    texts = ["a good film and so on and so on and on", "!", "\u200b", "the plot"]
    ours, theirs = (r.texts(texts, texts[::-1] if pair else None) for r in (reader, its_reader))
    np.testing.assert_array_equal(bilstm.predict(loaded, theirs, 4), bilstm.predict(model, ours, 4))
    assert ours.a.lengths.tolist() == [8, 1, 1, 2]  # cut to its length; of nothing, one unknown token
    assert ids_of(ours.a, 2).tolist() == [wordpiece.unk_id]


def test_the_padding_may_have_any_id(encoder, tmp_path):
    """Of a vocabulary whose [PAD] is not the first token that one stays zero, and the first is a token as others."""
    first, *rest = (encoder / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*rest, first]) + "\n")
    vocabulary = WordPiece(tmp_path / "vocab.txt", lowercase=True)
    model = bilstm.create(
        bilstm.BiLSTMConfig(vocabulary.size, ("0", "1"), pad_id=vocabulary.pad_id, embedding_size=4), 0
    )
    table = model.embedding.weight.numpy()
    assert vocabulary.pad_id == len(rest) and not table[-1].any() and table[0].all()
    texts = bilstm.Reader(vocabulary, "en", 8).texts(["a good film", "film"])
    assert texts.batch(np.array([0, 1]))["ids"][1, 1:].tolist() == [vocabulary.pad_id] * 2
    bilstm.save_student(tmp_path, model, bilstm.Reader(vocabulary, "en", 8))
    assert bilstm.load_student(tmp_path)[0].config.pad_id == vocabulary.pad_id


def test_scores_start_at_their_mean(data_dir, teachers, tmp_path):
    common = ("--model_name", teachers("STS-B"), "--lr", "1e-30", "--max_steps", 1, "--n_iter", 0)
    taught = ("--teacher_path", teachers("STS-B"), "--cache_dir", tmp_path / "cache")
    mean = task_rows("STS-B", data_dir).labels.mean()
    for main, more in ((small.main, ()), (bert_distill.main, taught)):
        folder = main(lstm(data_dir, tmp_path / main.__module__, "STS-B", *common, *more))
        assert bilstm.load_student(folder)[0].classifier.bias.numpy() == pytest.approx(mean, abs=1e-4)


def test_lazy_embeddings_move_only_what_was_read(data_dir, encoder, tmp_path):
    argv = lstm(
        data_dir, tmp_path / "run", "SST-2", "--model_name", encoder, "--lazy_embeddings", "true", "--p_mask", 0
    )
    (tmp_path / "data" / "SST-2").mkdir(parents=True)
    for split in ("train", "dev"):
        lines = "".join(f"{word} film\t{i % 2}\n" for i, word in enumerate(("bad", "good") * 8))
        (tmp_path / "data" / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\n" + lines)
    run = small.main([*argv, "--data_dir", str(tmp_path / "data")])
    model, reader = bilstm.load_student(run)
    start = bilstm.create(model.config, 42).embedding.weight.numpy()
    moved = np.flatnonzero(np.abs(model.embedding.weight.numpy() - start).max(axis=1))
    assert [reader.vocabulary.tokens[i] for i in moved] == ["film", "good", "bad"]
