"""What cannot work is refused in one line that names the file and row, or the flag, and nothing is written or lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy

from distill.errors import UserError
from distill.tensors import load_tensors
from distill.training import monitor
from distill_lstm import bert_distill, small
from glue import run_glue
from tests.recipes.runs import glue, lstm, metrics, read, refused, tree
from tests.tiny import VOCAB, keep_one_token_type, make_bert_folder, save_as_transformers_5
from virt import run_classifier_bipartition

HEADER = "sentence\tlabel"
ROWS = ["a good film\t1", "a bad film\t0"] * 4


@pytest.fixture
def sst2(tmp_path):
    """sst2(split, lines or bytes): tmp_path/data with a small SST-2 and one file of it spoilt; returns that file."""

    def write(split="train", content=(HEADER, *ROWS)):
        folder = tmp_path / "data" / "SST-2"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train", "dev"):
            (folder / f"{name}.tsv").write_text("\n".join([HEADER, *ROWS]) + "\n")
        path = folder / f"{split}.tsv"
        path.write_bytes(content if isinstance(content, bytes) else ("\n".join(content) + "\n").encode())
        return path

    return write


def distil(data_dir, teacher, folder, *more):
    return lstm(data_dir, folder, "SST-2", "--teacher_path", teacher, "--cache_dir", folder.parent / "cache", *more)


# Rows

BAD_ROWS = {
    "too few columns": ([HEADER, *ROWS[:3], "a film", *ROWS], ":5: 1 columns where 2 are needed"),
    "unknown label": ([HEADER, *ROWS, "a film\t2"], ":10: unknown label '2' (known: 0, 1)"),
    "empty label": ([HEADER, "a film\t", *ROWS], ":2: the label is empty"),
    "empty text": ([HEADER, *ROWS[:2], " \t1", *ROWS], ":4: the text in 'sentence' is empty"),
    "missing column": (["text\tlabel", *ROWS], ":1: no column 'sentence' (columns found: text, label)"),
    "empty split": ([HEADER], ": the split is empty"),
    "not UTF-8": (f"{HEADER}\na good film\t1\n".encode() + b"caf\xe9\t0\n", ":3: not UTF-8 text (byte 32)"),
}


@pytest.mark.parametrize("split", ["train", "dev"])
@pytest.mark.parametrize("fault", BAD_ROWS)
@pytest.mark.parametrize("script", ["run_glue", "small", "bert_distill"])
def test_rows(script, fault, split, sst2, teachers, tmp_path):
    content, expected = BAD_ROWS[fault]
    path, run = sst2(split, content), tmp_path / "run"
    mains = {
        "run_glue": (run_glue.main, glue(tmp_path / "data", teachers("SST-2"), run)),
        "small": (small.main, lstm(tmp_path / "data", run, "SST-2", "--tokens", "words")),
        "bert_distill": (bert_distill.main, distil(tmp_path / "data", teachers("SST-2"), run)),
    }
    assert refused(*mains[script], tmp_path).startswith(f"{path}{expected}")


def test_missing_files_and_folders(sst2, encoder, tmp_path):
    run = tmp_path / "run"
    assert f"--data_dir {tmp_path}/none: no such folder" in refused(
        run_glue.main, glue(tmp_path / "none", encoder, run), tmp_path
    )
    sst2("dev").unlink()
    line = refused(run_glue.main, glue(tmp_path / "data", encoder, run), tmp_path)
    assert f"{tmp_path}/data/SST-2/dev.tsv: no such file (the dev split of SST-2)" in line
    assert "--task_name nonsense: unknown" in refused(
        run_glue.main, glue(tmp_path / "data", encoder, run, "nonsense"), tmp_path
    )
    own = ["--train_file", str(tmp_path / "none.csv"), "--dev_file", str(tmp_path / "none.csv")]
    assert f"{tmp_path}/none.csv: no such file" in refused(small.main, [*lstm(tmp_path, run), *own], tmp_path)


def test_own_columns(encoder, tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("review,stars\ngood,1\nbad,2\n")
    flags = [f"--{split}_file={tmp_path / split}.csv" for split in ("train", "dev")]
    argv = [*glue(tmp_path, encoder, tmp_path / "run"), *flags]
    assert "--text_column" in refused(run_glue.main, argv, tmp_path)
    line = refused(run_glue.main, [*argv, "--text_column", "text"], tmp_path)
    assert line == f"--text_column text: no such column in {tmp_path}/train.csv (columns found: review, stars)"
    assert "--label_column" in refused(run_glue.main, [*argv, "--text_column", "review"], tmp_path)


def test_a_bad_test_row_is_found_before_the_training(sst2, encoder, tmp_path):
    path = sst2("test", ["index\tsentence", "0\ta film", "1"])
    argv = [*glue(tmp_path / "data", encoder, tmp_path / "run"), "--do_predict", "true"]
    assert refused(run_glue.main, argv, tmp_path).startswith(f"{path}:3: 1 columns where 2 are needed")


def test_byte_order_mark_and_crlf_are_accepted(sst2, encoder, tmp_path):
    plain = small.main([*lstm(sst2().parent.parent, tmp_path / "plain"), "--model_name", str(encoder)])
    for split in ("train", "dev"):
        path = tmp_path / "data" / "SST-2" / f"{split}.tsv"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    windows = small.main([*lstm(tmp_path / "data", tmp_path / "windows"), "--model_name", str(encoder)])
    assert (plain / "model.safetensors").read_bytes() == (windows / "model.safetensors").read_bytes()


def test_unlabelled_rows(sst2, teachers, tmp_path):
    path = tmp_path / "more.txt"
    argv = distil(sst2().parent.parent, teachers("SST-2"), tmp_path / "run", "--unlabelled_file", path)
    assert refused(bert_distill.main, argv, tmp_path) == f"{path}: no such file"
    path.write_text("a film\n\na movie\n")
    assert refused(bert_distill.main, argv, tmp_path).startswith(f"{path}:2: the text is empty")


# Models


def spoil(folder, change):
    path = folder / "model.safetensors"
    state = safetensors.numpy.load_file(path)
    change(state)
    safetensors.numpy.save_file(state, path, metadata={"format": "np"})


def without_a_weight(folder):
    spoil(folder, lambda state: state.pop("bert.encoder.layers.1.linear1.bias"))
    return "model.safetensors: weights missing: bert.encoder.layers.1.linear1.bias"


def with_a_weight_too_many(folder):
    spoil(folder, lambda state: state.update({"bert.encoder.layers.7.linear1.bias": state["bert.pooler.dense.bias"]}))
    return "model.safetensors: weights too many: bert.encoder.layers.7.linear1.bias"


def truncated(folder):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    return "model.safetensors: truncated, or not a safetensors file"


def other_vocabulary(folder):
    (folder / "vocab.txt").write_text("\n".join(VOCAB[:-3]) + "\n")
    return f"vocab.txt: {len(VOCAB) - 3} tokens, but the embedding in model.safetensors has {len(VOCAB)} rows"


def no_vocabulary(folder):
    (folder / "vocab.txt").unlink()
    return "vocab.txt: no such file"


def no_config(folder):
    (folder / "config.json").unlink()
    (folder / "model_config.json").unlink()
    return ": neither config.json nor model_config.json beside model.safetensors"


FAULTS = (without_a_weight, with_a_weight_too_many, truncated, other_vocabulary, no_vocabulary, no_config)


@pytest.mark.parametrize("fault", FAULTS)
def test_models(fault, teacher, data_dir, tmp_path):
    expected = fault(teacher)
    for main, argv in (
        (run_glue.main, glue(data_dir, teacher, tmp_path / "run")),
        (run_glue.main, [*glue(data_dir, teacher, tmp_path / "run"), "--do_train", "false"]),
        (bert_distill.main, distil(data_dir, teacher, tmp_path / "run")),
        (small.main, [*lstm(data_dir, tmp_path / "run"), "--model_name", str(teacher), "--use_pretrained_emb", "true"]),
    ):
        if main is small.main and "linear1" in expected:
            continue  # it reads the embeddings alone
        line = refused(main, argv, tmp_path)
        assert line.startswith(str(teacher)) and expected in line


def test_a_model_of_one_token_type_reads_no_pairs(data_dir, encoder, teachers, tmp_path):
    expected = "config.json: type_vocab_size 1, and two texts in one input need 2 token types"
    teacher = keep_one_token_type(shutil.copytree(teachers("MRPC"), tmp_path / "teacher"))
    bert = keep_one_token_type(shutil.copytree(encoder, tmp_path / "bert"))
    argv = lstm(data_dir, tmp_path / "run", "MRPC", "--teacher_path", teacher, "--cache_dir", tmp_path / "cache")
    assert refused(bert_distill.main, argv, tmp_path).startswith(f"{teacher}/{expected}")
    assert refused(run_glue.main, glue(data_dir, bert, tmp_path / "run", "MRPC"), tmp_path).startswith(
        f"{bert}/{expected}"
    )
    pairs = ["--task_name", "MRPC", "--data_dir", data_dir, "--init_checkpoint", bert, "--output_dir", tmp_path / "run"]
    lengths = ["--max_seq_length_query", "14", "--max_seq_length_doc", "18"]
    line = refused(run_classifier_bipartition.main, [*map(str, pairs), *lengths], tmp_path)
    assert line.startswith(f"{bert}/{expected}")
    more = ("--max_steps", 1)
    assert run_glue.main(glue(data_dir, bert, tmp_path / "run", "SST-2", *more)) == tmp_path / "run"  # one text


def test_a_bert_with_tokenizer_json_alone_is_a_start_and_a_teacher(data_dir, encoder, tmp_path):
    start = save_as_transformers_5(shutil.copytree(encoder, tmp_path / "start"))
    teacher = run_glue.main(glue(data_dir, start, tmp_path / "teacher"))
    assert (teacher / "vocab.txt").read_bytes() == (encoder / "vocab.txt").read_bytes()
    save_as_transformers_5(teacher)
    student = bert_distill.main([*distil(data_dir, teacher, tmp_path / "student"), "--skip_teacher_check", "true"])
    assert (student / "vocab.txt").read_bytes() == (encoder / "vocab.txt").read_bytes()


def test_a_truncated_file_of_the_older_name(teacher, data_dir, tmp_path):
    path = teacher / "model_state.pdparams"
    os.truncate(path, path.stat().st_size - 1000)
    line = refused(bert_distill.main, distil(data_dir, path, tmp_path / "run"), tmp_path)
    assert line.startswith(f"{path}: truncated")


def test_no_teacher(data_dir, tmp_path):
    line = refused(bert_distill.main, lstm(data_dir, tmp_path / "run"), tmp_path)
    assert "--teacher_path is needed" in line and "run_glue.py" in line
    line = refused(bert_distill.main, distil(data_dir, tmp_path / "none", tmp_path / "run"), tmp_path)
    assert f"{tmp_path}/none: no such folder" in line


def relabel(folder, *labels):
    config = read(folder / "config.json") | {
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    (folder / "config.json").write_text(json.dumps(config))


def test_a_teacher_with_another_order_of_labels_by_its_config(teacher, data_dir, tmp_path):
    relabel(teacher, "1", "0")
    argv = distil(data_dir, teacher, tmp_path / "run")
    line = refused(bert_distill.main, argv, tmp_path)
    assert line.startswith(f"{teacher}: the teacher has labels in another order (1, 0) than SST-2 (0, 1)")
    assert "--skip_teacher_check" in line
    assert bert_distill.main([*argv, "--skip_teacher_check", "true"]) == tmp_path / "run"
    predicting = [*glue(data_dir, teacher, tmp_path / "predicted"), "--do_train", "false", "--do_predict", "true"]
    assert "has labels in another order (1, 0) than SST-2 (0, 1); train it on this task first" in refused(
        run_glue.main, predicting, tmp_path
    )


def test_a_teacher_with_other_labels(teacher, tmp_path):
    relabel(teacher, "neg", "pos")
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\n" + "a good film,cat\na bad film,dog\n" * 4)
    own = [f"--{split}_file={tmp_path / split}.csv" for split in ("train", "dev")]
    line = refused(bert_distill.main, [*distil(tmp_path, teacher, tmp_path / "run"), *own], tmp_path)
    assert line.startswith(f"{teacher}: the teacher has other labels (neg, pos) than own (cat, dog)")


def test_a_teacher_with_another_order_of_labels_by_its_scores(teacher, data_dir, tmp_path):
    """Its config says nothing, its outputs are exchanged: it is worse than chance, and the line says why."""
    spoil(
        teacher,
        lambda state: state.update(
            {f"classifier.{part}": state[f"classifier.{part}"][..., ::-1].copy() for part in ("weight", "bias")}
        ),
    )
    argv = distil(data_dir, teacher, tmp_path / "run", "--cache_dir", tmp_path.parent / f"{tmp_path.name} cache")
    line = refused(bert_distill.main, argv, tmp_path)
    assert (
        line.startswith(f"{teacher}: no better than chance")
        and "(1, 0)" in line
        and "labels are in another order" in line
    )


def test_dev_rows_of_one_label(data_dir, teachers, tmp_path):
    dev = tmp_path / "data" / "SST-2" / "dev.tsv"
    shutil.copytree(data_dir / "SST-2", dev.parent)
    dev.write_text("sentence\tlabel\n" + "a good film\t1\n" * 4)
    cache = ("--cache_dir", tmp_path.parent / f"{tmp_path.name} cache")
    line = refused(bert_distill.main, distil(tmp_path / "data", teachers("SST-2"), tmp_path / "run", *cache), tmp_path)
    assert "all 4 dev rows have the label 1, which says nothing of a teacher" in line


def test_a_teacher_at_chance(data_dir, tmp_path):
    teacher = make_bert_folder(tmp_path / "untrained", layers=1)
    spoil(teacher, lambda state: state["classifier.bias"].__setitem__(0, 100.0))  # it always says 0
    argv = distil(data_dir, teacher, tmp_path / "run", "--cache_dir", tmp_path.parent / f"{tmp_path.name} cache")
    line = refused(bert_distill.main, argv, tmp_path)
    assert line.startswith(
        f"{teacher}: no better than chance: accuracy 0.500 on 48 dev rows, the commonest label alone gives 0.500"
    )
    assert bert_distill.main([*argv, "--skip_teacher_check", "true"]) == tmp_path / "run"


def test_a_teacher_of_another_task(teachers, data_dir, tmp_path):
    line = refused(bert_distill.main, distil(data_dir, teachers("STS-B"), tmp_path / "run"), tmp_path)
    assert "its head has 1 outputs, the task needs 2" in line
    other = make_bert_folder(tmp_path / "other", layers=1, vocab=[*VOCAB, "more"])
    argv = distil(data_dir, teachers("SST-2"), tmp_path / "run", "--model_name", other)
    assert refused(bert_distill.main, argv, tmp_path).startswith(
        f"--model_name {other}: its wordpieces are not those of the teacher"
    )


# Output folders


def test_the_folder_of_another_run(data_dir, teacher, encoder, tmp_path):
    alone = [*lstm(data_dir, tmp_path / "alone"), "--model_name", str(encoder), "--num_train_epochs", "1"]
    small.main(alone)
    for main, argv, difference in (
        (small.main, [*alone, "--seed", "7"], "seed 42 there, 7 now"),
        (bert_distill.main, [*distil(data_dir, teacher, tmp_path / "alone")], "teacher not set there"),
        (run_glue.main, glue(data_dir, encoder, tmp_path / "alone"), "holds a run with other settings"),
        (
            run_glue.main,
            [*glue(data_dir, encoder, teacher), "--learning_rate", "1e-5"],
            "learning_rate 0.003 there, 1e-05 now",
        ),
        (run_glue.main, [*glue(data_dir, teacher, tmp_path / "alone"), "--do_train", "false"], "holds a run"),
    ):
        line = refused(main, argv, tmp_path / "alone", teacher)
        assert line.startswith("--output_dir ") and difference in line
    overwritten = small.main([*alone, "--seed", "7", "--overwrite", "true"])
    assert read(overwritten / "run.json")["seed"] == 7 and read(overwritten / "run.json")["finished"]


def test_a_folder_that_is_no_runs(data_dir, encoder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    for argv in (
        glue(data_dir, encoder, tmp_path / "thesis"),
        glue(data_dir, encoder, tmp_path / "thesis" / "chapter1.tex"),
    ):
        assert f"--output_dir {argv[7]}" in refused(run_glue.main, argv, tmp_path)


# A full disk and damaged checkpoints


def full_disk(monkeypatch, folder, after=0):
    """Writing below `folder` fails after so many files."""
    written, fsync = [], os.fsync

    def fails(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(str(folder)):
            written.append(path)
            if len(written) > after:
                raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)


def test_a_full_disk_at_the_start(data_dir, encoder, tmp_path, monkeypatch):
    argv = [*lstm(data_dir, tmp_path / "run"), "--model_name", str(encoder)]
    (tmp_path / "run").mkdir()
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path)
        assert "the disk is full" in refused(small.main, argv, tmp_path)


@pytest.mark.parametrize("after", [3, 7, 12, 17])
def test_a_full_disk_in_training_loses_nothing(after, data_dir, encoder, tmp_path, monkeypatch):
    argv = [*lstm(data_dir, tmp_path / "run"), "--model_name", str(encoder), "--save_steps", "4"]
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path / "run", after)
        with pytest.raises(UserError) as error:
            small.main(argv)
    line = str(error.value)
    assert line.startswith(str(tmp_path / "run")) and "the disk is full" in line and "\n" not in line
    assert not list((tmp_path / "run").rglob("*.tmp"))
    small.main(argv)  # with some space freed the same command continues
    whole = small.main([*lstm(data_dir, tmp_path / "whole"), "--model_name", str(encoder), "--save_steps", "4"])
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_full_disk_under_the_cache(data_dir, teacher, tmp_path, monkeypatch):
    argv = distil(data_dir, teacher, tmp_path / "run")
    (tmp_path / "cache").mkdir()
    with monkeypatch.context() as patch:
        full_disk(patch, tmp_path / "cache", after=5)  # the dev rows have room, the training rows not
        with pytest.raises(UserError, match="the disk is full; what is cached stays.*--cache_dir.*--cache_limit_gb"):
            bert_distill.main(argv)
    assert not list((tmp_path / "cache").rglob("*.tmp")) and list((tmp_path / "cache").rglob("segment-*.json"))
    assert read(bert_distill.main(argv) / "run.json")["finished"]


def test_damaged_checkpoints(data_dir, encoder, tmp_path, monkeypatch, capsys):
    argv = [*lstm(data_dir, tmp_path / "run"), "--model_name", str(encoder), "--save_steps", "4"]

    class Killed(Exception):
        pass

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(monitor.Run, "finish", killed)
        small.main(argv)
    unharmed = shutil.copytree(tmp_path / "run", tmp_path / "unharmed")
    older, newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    os.truncate(newest / "weights.safetensors", 1000)
    run = small.main(argv)
    assert f"damaged checkpoint {newest}/weights.safetensors (1000 bytes of " in capsys.readouterr().out
    whole = small.main([*argv, "--output_dir", str(tmp_path / "whole")])
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert metrics(run)[-1]["step"] == 36

    for step in (older, newest):
        os.truncate(unharmed / "checkpoints" / step.name / "weights.safetensors", 1000)
    kept = tree(unharmed / "checkpoints", unharmed / "best")
    with pytest.raises(UserError) as error:
        small.main([*argv, "--output_dir", str(unharmed)])
    assert f"damaged checkpoint {unharmed}/checkpoints/{newest.name}/weights.safetensors" in str(error.value)
    assert f"delete {unharmed}/checkpoints" in str(error.value) and "\n" not in str(error.value)
    assert tree(unharmed / "checkpoints", unharmed / "best") == kept


def test_a_student_whose_parts_do_not_fit(data_dir, encoder, tmp_path):
    from models.bilstm import load_student

    run = small.main([*lstm(data_dir, tmp_path / "run"), "--model_name", str(encoder)])
    spoil(run, lambda state: state.pop("fc.bias"))
    with pytest.raises(UserError, match="weights missing: fc.bias"):
        load_student(run)
    os.truncate(run / "model.safetensors", 500)
    with pytest.raises(UserError, match="truncated"):
        load_student(run)
    (run / "vocab.txt").write_text("\n".join(VOCAB[:-1]) + "\n")
    with pytest.raises(UserError, match=f"run: {len(VOCAB) - 1} tokens, the model has {len(VOCAB)}"):
        load_student(run)
    assert load_tensors(encoder / "model.safetensors")


# Flags

NO_GPU = "--device gpu: this paddle is built for CPUs only; install the GPU wheel of paddle 3.3.1"
BAD_FLAGS = [
    (run_glue.main, "--learning_rate 0", "--learning_rate 0.0: must be above 0"),
    (run_glue.main, "--learning_rate nan", "--learning_rate nan: must be a finite number"),
    (run_glue.main, "--batch_size 0", "--batch_size 0: must be at least 1"),
    (run_glue.main, "--max_seq_length 65", "--max_seq_length 65: the model in"),
    (run_glue.main, "--warmup_proportion 1.5", "--warmup_proportion 1.5: must be at most 1"),
    (run_glue.main, "--optimizer sgd", "--optimizer sgd: must be one of adamw, adam, adadelta"),
    (run_glue.main, "--optimizer adam", "--weight_decay 0.01: acts with --optimizer adamw only"),
    (run_glue.main, "--num_train_epochs many", "invalid int value: 'many'"),
    (run_glue.main, "--do_train maybe", "argument --do_train/--nodo_train: Boolean value expected"),
    (run_glue.main, "--n_gpu 2", "--n_gpu: several devices are used by `python -m paddle.distributed.launch"),
    (run_glue.main, "--bach_size 8", "--bach_size: unknown flag; did you mean --batch_size?"),
    (run_glue.main, "--config none.yaml", "--config none.yaml: no such file"),
    (run_glue.main, "--device gpu", NO_GPU),
    (run_glue.main, "--amp bf16", "--amp bf16: mixed precision needs a GPU"),
    (small.main, "--dropout_prob 0.95", "--dropout_prob 0.95: must be at most 0.9"),
    (small.main, "--p_mask 0.6 --p_pos 0.6", "--p_mask and --p_pos: their sum must be at most 1"),
    (small.main, "--p_pos 0.1", "--p_pos replaces whole words; add --whole_word_mask true"),
    (small.main, "--p_pos 0.1 --tokens words", "--p_pos: English words need --pos_file"),
    (small.main, "--p_pos 0.1 --tokens words --pos_file none", "none: no such vocabulary file"),
    (small.main, "--whole_word_mask true --tokens words", "--whole_word_mask: the student reads whole words already"),
    (small.main, "--vocab_size 30522", "--vocab_size 30522: "),
    (small.main, "--vocab_size 2 --tokens words", "--vocab_size 2: must be at least 3"),
    (small.main, "--vocab_path none.txt", "--vocab_path is the list of a student's words; add --tokens words"),
    (small.main, "--vocab_path none.txt --tokens words", "none.txt: no such vocabulary file"),
    (small.main, "--embedding_name glove.txt", "--embedding_name needs --use_pretrained_emb true"),
    (small.main, "--embedding_name none.txt --use_pretrained_emb true", "none.txt: no such word vector file"),
    (small.main, "--lazy_embeddings true --optimizer adamw", "--lazy_embeddings needs --optimizer adam"),
    (small.main, "--weight_decay 0.1", "--weight_decay 0.1: acts with --optimizer adamw only"),
    (small.main, "--device gpu", NO_GPU),
    (bert_distill.main, "--alpha 1.1", "--alpha 1.1: must be at most 1"),
    (bert_distill.main, "--n_iter -1", "--n_iter -1: must be at least 0"),
    (bert_distill.main, "--cache_limit_gb -1", "--cache_limit_gb -1.0: must be at least 0"),
    (bert_distill.main, "--device gpu", NO_GPU),
]  # fmt: skip


@pytest.mark.parametrize(
    ("main", "flags", "expected"), BAD_FLAGS, ids=[f"{i}{flags}" for i, (_, flags, _) in enumerate(BAD_FLAGS)]
)
def test_flags(main, flags, expected, data_dir, encoder, teachers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = {
        run_glue.main: lambda: glue(data_dir, encoder, tmp_path / "run"),
        small.main: lambda: [*lstm(data_dir, tmp_path / "run"), "--model_name", str(encoder)],
        bert_distill.main: lambda: distil(data_dir, teachers("SST-2"), tmp_path / "run"),
    }[main]()
    line = refused(main, [*common, *flags.split()], tmp_path)
    assert expected in line


# By the command line


@pytest.mark.parametrize("case", ["row", "flag", "folder"])
def test_exit_status_and_one_line(case, sst2, encoder, tmp_path):
    path = sst2("train", BAD_ROWS["unknown label"][0])
    if case == "folder":
        sst2()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("years of work")
    argv = {
        "row": (run_glue, glue(tmp_path / "data", encoder, tmp_path / "run")),
        "flag": (run_glue, [*glue(tmp_path / "data", encoder, tmp_path / "run"), "--device", "gpu"]),
        "folder": (small, [*lstm(tmp_path / "data", tmp_path / "run"), "--tokens", "words"]),
    }
    module, flags = argv[case]
    before = tree(tmp_path)
    done = subprocess.run(
        [sys.executable, str(Path(module.__file__)), *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    expected = {
        "row": f"error: {path}:10: unknown label '2'",
        "flag": "error: --device gpu: ",
        "folder": f"error: --output_dir {tmp_path}/run: ",
    }
    assert line.startswith(expected[case]) and "Traceback" not in done.stdout
    assert tree(tmp_path) == before
