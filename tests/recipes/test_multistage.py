"""multistage/: the shipped configs chained from end to end on tiny models, kill and resume, two ranks, bad input."""

import configparser
import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.data.alignment import translations
from distill.data.parallel import load_parallel
from distill.data.wordpiece import Encoded
from distill.encoders import inference
from distill.evaluation.latency import Latency
from distill.evaluation.sentences import save_heat_map
from distill.tensors import load_tensors
from distill.training.fit import TrainingStopped
from models.recurrent_encoder import EncoderConfig, RecurrentEncoder, parameter_count
from models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from multistage import test as test_script
from multistage import train
from multistage.config import FOLDER, METHODS, Config
from tests.models.folders import make_sentence_folder
from tests.recipes.runs import interrupted, metrics, read, refused, tree
from tests.tiny import SPECIAL, VOCAB

LANGUAGES = ("en", "de", "es", "fr", "it", "nl", "zh")
WORDS = [token for token in VOCAB if token.isalpha() and len(token) > 1]
SHIPPED = sorted(FOLDER.rglob("*.config"))


def quick(patch):
    """Speed is not measured, nothing is drawn, and few texts earn no graph (test_sentence_encoder.py has one)."""
    latency = Latency({"p50": 1.0, "p95": 2.0, "p99": 3.0, "mean": 1.5}, 2, 4.0)
    patch.setattr("distill.evaluation.sentences.measure", lambda call, rows: latency)
    patch.setattr("distill.evaluation.sentences.save_heat_map", lambda path, scores: None)
    patch.setattr(inference, "available", lambda: False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quick(monkeypatch)


def sentence(rng):
    return " ".join(map(str, rng.choice(WORDS, rng.integers(3, 8))))


def translated(text, language):
    """Other words for the same ones, by language, the other way round."""
    turn = LANGUAGES.index(language)
    if not turn:
        return text
    return " ".join(WORDS[(WORDS.index(word) + 11 * turn) % len(WORDS)] for word in reversed(text.split()))


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    """Parallel sentences and scored pairs in both layouts that the shipped configs name."""
    root, rng = tmp_path_factory.mktemp("multilingual"), np.random.default_rng(0)
    (root / "parallel").mkdir()
    (root / "parallel-sentences").mkdir()
    (root / "stsb_multi_mt").mkdir()

    both = [sentence(rng) for _ in range(20)]  # in several languages, as in multi-way corpora

    def pairs(language, rows):
        found = both if rows == len(both) else [sentence(rng) for _ in range(rows)]
        return "".join(f"{text}\t{translated(text, language)}\n" for text in found)

    for language in ("de", "es"):
        for split, rows in (("stsb_train", 20), ("stsb_dev", 6), ("tatoeba_test", 6)):
            (root / "parallel" / f"{split}.en-{language}.tsv").write_text(pairs(language, rows))
        for corpus in ("TED2020", "WikiMatrix", "News-Commentary", "Europarl"):
            for split, rows in (("train", 5), ("dev", 3)):
                file = root / "parallel-sentences" / f"{corpus}-en-{language}-{split}.tsv.gz"
                file.write_bytes(gzip.compress(pairs(language, rows).encode()))
    for split in ("dev", "test"):
        scored = []
        for score in np.linspace(0, 5, 8):
            first = sentence(rng)
            words = first.split()
            kept = round(score / 5 * len(words))
            scored.append((first, " ".join(words[:kept] + sentence(rng).split()[kept:]), f"{score:.2f}"))
        for language in LANGUAGES:
            lines = [f"{translated(a, language)},{translated(b, language)},{score}\n" for a, b, score in scored]
            (root / "stsb_multi_mt" / f"stsb-{language}-{split}.csv").write_text("".join(lines))
    return root


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Tiny models under the names in the shipped configs, beside which the runs lie."""
    root = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("paraphrase-multilingual-MiniLM-L12-v2", "bert-base-multilingual-cased")):
        make_sentence_folder(root / name, layers=12, seed=seed, plain=bool(seed))
    for seed, name in enumerate(("paraphrase-xlm-r-multilingual-v1", "xlm-roberta-base")):
        make_sentence_folder(root / name, "xlm-roberta", layers=12, seed=seed, plain=bool(seed))
    make_sentence_folder(root / "paraphrase-MiniLM-L12-v2", seed=5)
    make_sentence_folder(root / "paraphrase-distilroberta-base-v1", "roberta", seed=6)
    make_sentence_folder(root / "teacher", layers=6, seed=7, normalize=True)
    words = (*SPECIAL, *(token for token in VOCAB[5:] if token.isalpha()), *"äöü")
    (root / "cpu_vocab").mkdir()
    (root / "cpu_vocab" / "vocab.txt").write_text("".join(f"{token}\n" for token in words))
    (root / "cpu_vocab" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    return root


def tiny(file, folder, **changes):
    """A copy of a shipped config with the widths of the tiny models, one short epoch, and the changes `key = value`,
    None to remove the key."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(FOLDER / file)
    changes = {"epoch": 1, "batch_size": 16, "output_time": 3, "max_seq_length": 32} | changes
    if parser.has_option("model", "embedding_size"):
        changes.setdefault("embedding_size", 8)
    for key in ("vocab_size", "hidden_size", "max_position_embeddings"):
        changes.setdefault(key, None)
    for section in parser.sections():
        for key in list(parser[section]):
            if parser[section][key] == "all-MiniLM-L6-v2":
                parser[section][key] = "teacher"
            if key in changes:
                if changes[key] is None:
                    del parser[section][key]
                elif (section, key) != ("test", "batch_size"):
                    parser[section][key] = str(changes[key])
    for key, value in changes.items():
        if value is not None and not any(parser.has_option(section, key) for section in parser.sections()):
            parser["model"][key] = str(value)
    path = Path(folder) / f"{Path(file).parent}_{Path(file).name}"
    with open(path, "w") as handle:
        parser.write(handle)
    return path


def flags(config, home, texts, *more, name=None):
    """The run lies beside the models that it names."""
    folder = home / (name or Config(config).name)
    fixed = ("--config", config, "--data_dir", texts, "--logdir", folder, "--cache_dir", home / "cache")
    return [str(value) for value in (*fixed, *more)]


@pytest.fixture(scope="session")
def trained(home, texts):
    """trained(file): the folder of the shipped config, run with all that it starts from."""
    made = {}

    def of(file):
        if file not in made:
            own = tiny(file, home)
            config = Config(own)
            for key in ("student_model_path", "vocab_path", "emb_ckp_path"):
                earlier = str(config["model", key])
                found = [other for other in SHIPPED if Config(other).name == earlier]
                if found:
                    of(str(found[0].relative_to(FOLDER)))
            with pytest.MonkeyPatch.context() as patch:
                quick(patch)
                made[file] = train.main(flags(own, home, texts))
        return made[file]

    return of


@pytest.mark.parametrize("file", [str(file.relative_to(FOLDER)) for file in SHIPPED])
def test_every_shipped_config_runs_after_what_it_starts_from(file, trained):
    folder = trained(file)
    config = Config(FOLDER / file)
    student = load_sentence_encoder(folder)
    shape = student.encoder.config
    assert shape.embedding_size == (8 if config["model", "embedding_size"] else None)
    depth = {"mul_mse": shape.num_hidden_layers, "bottle_distill": 0}
    assert shape.num_hidden_layers == depth.get(config["model", "model_name"], config["model", "layers_to_keep"])
    assert shape.repeat == (config["model", "repeat"] or 1)
    facts = read(folder / "run.json")
    assert facts["finished"] and facts["steps"] >= 1
    beside = config.method.beside
    for row in metrics(folder):
        if "losses" in row:
            assert set(row["losses"]) == {"source", "target", *([beside] if beside else [])}
    results = read(folder / "results_eval.json")
    assert results["parameters"] == parameter_count(shape) and "en-de" in results["sts"]
    assert ("mse" in results) == (config.method.learns == "teacher")


def test_a_stage_starts_from_the_stage_before(trained):
    """At a learning rate of next to nothing the weights are those that it starts from."""
    before = load_tensors(trained("cpu/bottle_distill.config") / "model.safetensors")
    assert not any(name.startswith("encoder.") for name in before)
    assistant = load_tensors(trained("cpu/mse.config") / "model.safetensors")
    third = load_tensors(trained("cpu/rec_bottle_distill.config") / "model.safetensors")
    assert third.keys() == before.keys() | {name for name in assistant if name[:16] in LAYERS_KEPT}


LAYERS_KEPT = tuple(f"encoder.layers.{i}" for i in range(3))
STILL = {"learning_rate": "1e-30"}


@pytest.mark.parametrize(
    ("file", "sources"),
    [
        ("cpu/rec_bottle_distill.config", ("cpu_bottle_distill", "cpu_mse")),
        ("cpu/rec_bottle_mcl.config", ("cpu_rec_bottle_distill",)),
        ("cpu/wo_recursive.config", ("cpu_bottle_distill", "cpu_mse")),
        ("cpu/rec_distill.config", ("cpu_mse",)),
        ("cpu/rec_mcl.config", ("cpu_rec_distill",)),
    ],
)
def test_weights_at_the_start(file, sources, trained, home, texts):
    trained(file)
    folder = train.main(flags(tiny(file, home, **STILL), home, texts, name=f"still {Path(file).stem}"))
    expected = {}
    for source in reversed(sources):
        expected |= load_tensors(home / source / "model.safetensors")
    for name, array in load_tensors(folder / "model.safetensors").items():
        np.testing.assert_allclose(array, expected[name], atol=1e-20)


def test_a_sentence_is_read_once_for_its_translations(home, texts, monkeypatch):
    """And each translation counts beside it as if it had been read for each."""
    read_rows, losses = [], []
    from multistage import losses as module

    forward, pair_losses = SentenceEncoder.forward, module.pair_losses

    def counted(self, ids, *more):
        if self.training:
            read_rows.append(ids.shape[0])
        return forward(self, ids, *more)

    def seen(*settings):
        parts = pair_losses(*settings)
        return lambda source, target, batch: losses.append((len(source), len(target))) or parts(source, target, batch)

    monkeypatch.setattr(SentenceEncoder, "forward", counted)
    monkeypatch.setattr(module, "pair_losses", seen)
    train.main(flags(tiny("cpu/mse.config", home, **STILL), home, texts, name="read once"))
    assert losses and all(a == b for a, b in losses)
    assert sum(read_rows[::2]) < 0.7 * sum(read_rows[1::2])  # sources, targets: two languages


def test_a_vocabulary_of_its_own_starts_with_the_teachers_vectors(home, texts):
    folder = train.main(flags(tiny("cpu/mse.config", home, **STILL), home, texts, name="still mse"))
    student, teacher = (load_sentence_encoder(home / name) for name in (folder.name, "teacher"))
    theirs = {token: i for i, token in enumerate(teacher.reader.tokens)}
    ours = student.encoder.embeddings.word_embeddings.weight.numpy()
    table = teacher.encoder.embeddings.word_embeddings.weight.numpy()
    shared = [(i, theirs[token]) for i, token in enumerate(student.reader.tokens) if token in theirs]
    assert 50 < len(shared) < len(ours) == student.reader.size
    rows = load_parallel(sorted((texts / "parallel").glob("stsb_train.*")))
    english, others = (student.tokens(column).ids for column in (rows.sources, rows.targets))
    only_translated = set(np.setdiff1d(others, english).tolist())
    same, other = ([pair for pair in shared if (pair[0] in only_translated) == there] for there in (False, True))
    assert len(same) > 50 and other
    np.testing.assert_allclose(ours[[i for i, _ in same]], table[[i for _, i in same]], atol=1e-20)
    for i, j in other:
        assert np.abs(ours[i] - table[j]).max() > 1e-3
    # So it says of an English sentence what the teacher says, before it is scaled to length 1.
    text = "the story is good"
    raw = load_sentence_encoder(home / "teacher", normalize=False)
    np.testing.assert_allclose(student.encode([text]), raw.encode([text]), atol=1e-5)


@pytest.mark.parametrize(("model", "scale"), [*((model, None) for model in METHODS), ("rec_bottle_ce", 5.0)])
def test_losses_of_each_model(model, scale):
    """The published formulas, in float64."""
    import paddle

    from multistage.losses import pair_losses

    rng = np.random.default_rng(1)
    source, target, teacher, other = rng.normal(size=(4, 5, 6))
    tensors = [paddle.to_tensor(v.astype("float32")) for v in (source, target, teacher, other)]
    batch = dict(zip(("teacher", "teacher_target"), tensors[2:], strict=True))
    found = pair_losses(METHODS[model], scale)(*tensors[:2], batch)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (source, target, teacher)]
    cosines, wanted = unit[0] @ unit[1].T, unit[2] @ unit[2].T
    sharp = np.exp((scale or 20) * cosines)
    likely = sharp / sharp.sum(1, keepdims=True)
    own = other if model.endswith("distill") else teacher
    expected = {"source": ((source - teacher) ** 2).mean(), "target": ((target - own) ** 2).mean()}
    if model.endswith("mcl"):
        expected["mcl"] = ((cosines - wanted) ** 2).mean()
    if model.endswith("bool"):
        expected["bool"] = ((cosines - np.eye(5)) ** 2).mean()
    if model.endswith("ce"):
        expected["ce"] = -0.01 * np.log(np.diag(likely)).mean()
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scale", [None, 2.0])
def test_the_teachers_vectors_are_multiplied_by_their_scale(scale, home, texts, monkeypatch):
    """In what is learned and in what is reported; these vectors are not of length 1, so theirs is 1."""
    if scale:
        monkeypatch.setattr("distill.training.collapse.teacher_scale", lambda vectors: scale)
    config = tiny("cpu/mse.config", home, batch_size=64, output_time=1, **STILL)
    folder = train.main(flags(config, home, texts, name=f"scale {scale}"))
    student = load_sentence_encoder(folder)
    teacher = load_sentence_encoder(home / "teacher", normalize=False)

    def squares(split):
        rows = load_parallel(sorted((texts / "parallel").glob(f"stsb_{split}.*")))
        wanted = (scale or 1.0) * teacher.encode(rows.sources).astype(np.float64)
        source, target = (student.encode(column) for column in (rows.sources, rows.targets))
        return ((source - wanted) ** 2).mean(), ((target - wanted) ** 2).mean()

    (row,) = [row["losses"] for row in metrics(folder) if "losses" in row]
    assert (row["source"], row["target"]) == pytest.approx(squares("train"), rel=1e-4, abs=1e-9)
    mse = read(folder / "results_eval.json")["mse"]
    assert (mse["en"], (mse["en-de"] + mse["en-es"]) / 2) == pytest.approx(squares("dev"), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["mse", "bottle_distill", "rec_bottle_distill", "rec_bottle_mcl"])
def test_killed_and_continued_in_each_stage(name, trained, home, texts, monkeypatch):
    """6 steps, dead after the fourth; the checkpoint is that of the third."""
    trained(f"cpu/{name}.config")
    config = tiny(f"cpu/{name}.config", home, epoch=2, hidden_dropout_prob=0.1)

    def argv(run):
        return flags(config, home, texts, "--seed", 3, name=f"{run} {name}")

    interrupted(train.main, argv("killed"), 4, monkeypatch)
    assert not (home / f"killed {name}" / "model.safetensors").exists()
    killed, whole = train.main(argv("killed")), train.main(argv("whole"))
    assert read(killed / "run.json")["resumed"] == 1 and read(whole / "run.json")["steps"] == 6
    for file in ("model.safetensors", "metrics.jsonl", "config.json", "vocab.txt"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()


def test_two_ranks_equal_one(home, texts):
    """Each sentence is compared with those of the other rank too; the ranks' batches have 7 and 6 rows."""
    script, logs = Path(train.__file__), home / "logs"

    def argv(name, batch_size):
        copies = home / name
        copies.mkdir()
        config = tiny("cpu/mcl.config", copies, batch_size=batch_size, output_time=1)
        return flags(config, home, texts, name=f"{name} ranks")

    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(logs))
    command = [sys.executable, *launch, str(script), *argv("two", 8), "--distributed"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    one = train.main(argv("one", 16))
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out + "".join(path.read_text() for path in sorted(logs.glob("workerlog.*")))
    two = home / "two ranks"
    expected, found = (load_tensors(folder / "model.safetensors") for folder in (one, two))
    assert expected.keys() == found.keys()
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) < 1e-5
    for a, b in zip(metrics(one), metrics(two), strict=True):
        for part in ("losses", "dev"):
            assert a.get(part, {}) == pytest.approx(b.get(part, {}), abs=1e-4)
    facts = read(two / "run.json")
    assert facts["finished"] and facts["rows"] == 40 and facts["hardware"]["ranks"] == 2


def test_training_goes_on_from_a_checkpoint_and_testing_takes_one(trained, home, texts, monkeypatch):
    monkeypatch.setattr("distill.evaluation.sentences.save_heat_map", save_heat_map)
    start = trained("cpu/mse.config")
    config = tiny("cpu/mse.config", home, **STILL)
    folder = train.main(flags(config, home, texts, "-checkpoint", start, "--do_test", name="continued"))
    expected, found = (load_tensors(path / "model.safetensors") for path in (start, folder))
    assert all(np.allclose(found[name], expected[name], atol=1e-20) for name in expected)
    places = ("-checkpoint", folder, "--data_dir", texts, "--logdir", home / "tested")
    tested = test_script.main(["--config", *map(str, (config, *places))])
    results = [read(path / "results_eval.json") for path in (tested, folder / "test")]
    for key in ("spearman", "sts", "translation", "parameters", "seed"):
        assert results[0][key] == results[1][key]
    assert results[0]["mse"] == pytest.approx(results[1]["mse"], rel=1e-4)
    assert results[0]["spearman"] != read(folder / "results_eval.json")["spearman"]  # of the dev splits
    assert len(results[0]["sts"]) == 25 and set(results[0]["translation"]) == {"en-de", "en-es"}
    assert {path.name for path in tested.iterdir()} == {"results_eval.json", "results_eval.csv", "spearman.png"}


def test_a_run_named_by_logdir_is_the_one_that_is_tested(trained, home, texts, tmp_path, monkeypatch):
    """Its dev report stays, and no other student's scores stand in it."""
    monkeypatch.setattr("distill.evaluation.sentences.save_heat_map", save_heat_map)
    run = shutil.copytree(trained("cpu/mse.config"), tmp_path / "my run")
    config, report = tiny("cpu/mse.config", home), read(run / "results_eval.json")
    argv = ["--config", str(config), "--data_dir", str(texts), "--logdir", str(run)]
    assert test_script.main(argv) == run / "test" and read(run / "results_eval.json") == report
    assert read(run / "test" / "results_eval.json")["spearman"] != report["spearman"]
    line = refused(test_script.main, [*argv, "--checkpoint", str(trained("cpu/mse.config"))], run)
    assert line == f"--logdir {run}: holds a run, which --checkpoint is not; pass another folder"


def test_without_its_teacher_a_student_is_tested_all_the_same(trained, home, texts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("distill.evaluation.sentences.save_heat_map", save_heat_map)
    student = trained("cpu/mse.config")  # before the config of its name is another
    config = tiny("cpu/mse.config", home)
    Path(config).write_text(Path(config).read_text().replace("teacher_path = teacher", "teacher_path = gone"))
    argv = ["--config", str(config), "--data_dir", str(texts), "--checkpoint", str(student)]
    found = read(test_script.main([*argv, "--logdir", str(tmp_path)]) / "results_eval.json")
    assert "mse" not in found and found["seed"] == 0
    assert "no squared error from the teacher: " in capsys.readouterr().out
    make_sentence_folder(home / "wider", width=20)
    tiny("cpu/mse.config", home)
    argv = ["--config", str(config), "--data_dir", str(texts), "--checkpoint", str(home / "wider")]
    assert "mse" not in read(test_script.main([*argv, "--logdir", str(tmp_path / "w")]) / "results_eval.json")
    assert "its vectors have 16 numbers, these 20" in capsys.readouterr().out
    tiny("cpu/mse.config", home)


def test_a_damaged_teacher_is_an_error_where_a_student_is_tested(trained, home, texts, tmp_path):
    student = trained("cpu/mse.config")
    damaged = shutil.copytree(home / "teacher", tmp_path / "damaged")
    config = tiny("cpu/mse.config", tmp_path, teacher_path=damaged)
    argv = ["--config", str(config), "--data_dir", str(texts), "--checkpoint", str(student)]
    argv += ["--logdir", str(tmp_path / "results")]
    weights = damaged / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    assert refused(test_script.main, argv, tmp_path).startswith(str(weights))
    weights.unlink()
    assert refused(test_script.main, argv, tmp_path).startswith(f"{damaged}: no weight file in it")


def test_a_finished_run_is_left_as_it_is(trained, home, texts, capsys):
    folder = trained("cpu/mse.config")
    before = tree(folder)
    argv = flags(tiny("cpu/mse.config", home), home, texts)
    train.main(argv)
    assert "holds this run, finished" in capsys.readouterr().out and tree(folder) == before
    line = refused(train.main, [*argv, "--seed", "5"], folder)
    assert "seed 0 there, 5 now" in line and line.startswith(f"--logdir {folder}: holds a run with other settings")
    assert line.endswith("choose another --logdir or pass --overwrite") and "output_dir" not in line
    assert "output.output_time 3 there, 4 now" in refused(
        train.main, flags(tiny("cpu/mse.config", home, output_time=4), home, texts, name="cpu_mse"), folder
    )
    tiny("cpu/mse.config", home)


def test_a_loss_that_is_no_number_names_the_configs_key(home, texts):
    config = bad(home, learning_rate="1e30", epoch=3)
    with pytest.raises(TrainingStopped, match=r"try a lower \[optim\] learning_rate$"):
        train.main(flags(config, home, texts, name="diverges"))


def test_an_unfinished_run_is_tested_into_a_folder_of_its_own(trained, home, texts, monkeypatch):
    """Beside its best student the results would be lost when that is replaced, or moved with it."""
    trained("cpu/mse.config")
    config = tiny("cpu/mse.config", home, epoch=2)
    argv = flags(config, home, texts, name="tested early")
    interrupted(train.main, argv, 4, monkeypatch)
    run = home / "tested early"
    asked = ["--config", str(config), "--data_dir", str(texts), "--checkpoint", str(run)]
    line = refused(test_script.main, asked, run)
    assert line.startswith(f"{run}: its training has not ended; pass --checkpoint {run} --logdir RESULTS")
    assert refused(test_script.main, [*asked, "--logdir", str(run)], run) == line
    assert (test_script.main([*asked, "--logdir", str(home / "early")]) / "results_eval.json").is_file()


def test_each_dev_sentence_is_encoded_once_an_evaluation(trained, home, texts, monkeypatch):
    trained("cpu/mse.config")
    asked, encode = [], SentenceEncoder.encode

    def counted(self, some, *more):
        if self.encoder.training is False and not self._fixed:
            asked.append(list(some))
        return encode(self, some, *more)

    monkeypatch.setattr(SentenceEncoder, "encode", counted)
    monkeypatch.setattr("distill.evaluation.sentences.report", lambda *_: None)
    monkeypatch.setattr("multistage.data.report", lambda *_: None)
    config = tiny("cpu/mse.config", home)
    folder = train.main(flags(config, home, texts, "--seed", 8, name="counted"))
    evaluations = sum("dev" in row for row in metrics(folder))
    together = [text for some in asked for text in some]
    assert len(asked) == evaluations and len(set(asked[0])) == len(asked[0]) and len(together) % len(asked[0]) == 0
    assert all("spread" in row["dev"] for row in metrics(folder) if "dev" in row)


SCRIPT = FOLDER.parent / "run_all.sh"


@pytest.mark.parametrize("chain", ["minilm_bottle", "minilm", "xlmr_bottle", "xlmr", "cpu_bottle", "cpu"])
def test_run_all_takes_the_stages_in_order(chain, tmp_path):
    """Each config starts from a student that an earlier one makes, and every flag reaches each."""
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$*"\n')
    fake.chmod(0o755)
    environment = os.environ | {"PYTHON": str(fake), "RUNS": "/my runs"}
    done = subprocess.run(
        ["bash", str(SCRIPT), chain, "--seed", "7"], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    calls = [line.split() for line in done.stdout.splitlines() if not line.startswith("==")]
    made = []
    for call in calls:
        assert call[0] == str(FOLDER.parent / "train.py") and call[-2:] == ["--seed", "7"]
        config = Config(call[call.index("--config") + 1])
        assert f"--logdir /my runs/{config.name}" in " ".join(call)
        earlier = [config[key] for key in (("model", "emb_ckp_path"), ("model", "student_model_path"))]
        assert all(name in made for name in earlier if name and (name.startswith("cpu_") or "distill" in name))
        made.append(config.name)
    stages = [Config(call[call.index("--config") + 1])["model", "model_name"] for call in calls]
    narrow = ["bottle_distill", "rec_bottle_distill", "rec_bottle_mcl"]
    expected = narrow if "bottle" in chain else ["rec_distill", "rec_mcl"]
    assert stages == (["mul_mse"] if "cpu" in chain else []) + expected


def test_run_all_stops_where_a_stage_fails(tmp_path):
    for argv, status in (([], 2), (["none"], 2), (["cpu"], 3)):
        (tmp_path / "fails").write_text("#!/bin/sh\necho called\nexit 3\n")
        (tmp_path / "fails").chmod(0o755)
        environment = os.environ | {"PYTHON": str(tmp_path / "fails")}
        done = subprocess.run(["bash", str(SCRIPT), *argv], capture_output=True, text=True, env=environment)
        assert done.returncode == status
        assert ("CHAIN: minilm_bottle" in done.stderr) == (status == 2)
        assert done.stdout.count("called") == (status == 3)


def bad(home, file="cpu/mse.config", name="bad", **changes):
    folder = home / name
    folder.mkdir(exist_ok=True)
    return tiny(file, folder, **changes)


@pytest.mark.parametrize("kind", ["all_emb", "all_distill", "separate"])
def test_published_names_without_effect_are_read(kind, home):
    config = Config(bad(home, train_dataset_type=f"parallel_{kind}_dataset"))
    assert config["data", "train_dataset_type"] == f"parallel_{kind}_dataset"
    for model in ("mse", "bool", "ce"):
        Config(bad(home, f"cpu/rec_bottle_{model}.config", f"bad_{model}", train_formatter="teacher_sim_formatter"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"learning_rate": None}, "[optim] learning_rate is missing"),
        ({"student_model_path": None}, "[model] student_model_path is missing"),
        ({"learning_rates": "1"}, "[model] key learning_rates is unknown"),
        ({"vocab_pat": "1"}, "[model] key vocab_pat is unknown; did you mean vocab_path?"),
        ({"model_name": "mse"}, "[model] model_name = mse: mul_mse or bottle_distill or"),
        ({"epoch": "2.5"}, "[train] epoch = 2.5: a whole number from 1 on is needed"),
        ({"epoch": "0"}, "[train] epoch = 0: a whole number from 1 on is needed"),
        ({"learning_rate": "fast"}, "[optim] learning_rate = fast: a number is needed"),
        ({"learning_rate": "0"}, "[optim] learning_rate = 0: a number above 0 is needed"),
        ({"warmup_rate": "1.5"}, "[optim] warmup_rate = 1.5: a number from 0 to 1 is needed"),
        ({"shuffle": "False"}, "[train] shuffle = False: True is read here"),
        ({"delete_old": "False"}, "[optim] delete_old = False: True is read here"),
        ({"repeat": "2"}, "[model] repeat = 2: mul_mse does not read it; remove the line"),
        ({"scale": "20.0"}, "[model] scale = 20.0: mul_mse does not read it"),
        ({"train_formatter": "teacher_sim_formatter"}, "train_formatter = teacher_sim_formatter: mul_mse takes mse_f"),
        ({"sts_languages": "de fr"}, "[data] sts_languages = ('de', 'fr'): en must be among them"),
        ({"identifier": "a/b"}, "[logging] identifier = a/b: it names a folder: no blanks, no slashes"),
        ({"model_name": "bottle_distill"}, "[model] embedding_size is missing; bottle_distill needs it"),
        ({"model_name": "rec_mcl"}, "[model] repeat is missing; rec_mcl needs it"),
    ],
)
def test_bad_configs(changes, why, home, texts):
    config = bad(home, **changes)
    line = refused(train.main, flags(config, home, texts, name="never"), home)
    assert line.startswith(str(config)) and why in line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("epoch = 1\n", ":1: a line before the first [section]"),
        ("[train]\nepoch = 1\nepoch = 2\n", ":3: [train] key epoch stands there a second time"),
        ("[train]\n[train]\n", ":2: [train] section stands there a second time"),
        ("[train]\nepoch\n", ":2: expected `key = value`"),
        ("[trian]\nepoch = 1\n", ": section [trian] is unknown; did you mean train?"),
        ("[DEFAULT]\nepoch = 1\n", ": section [DEFAULT]"),
        ("[train]\nepoch = \xff\n", ": not UTF-8 text"),
        ("", ": [logging] identifier is missing"),
    ],
)
def test_files_that_are_no_config(text, why, tmp_path):
    path = tmp_path / "my.config"
    path.write_bytes(text.encode("latin-1"))
    line = refused(train.main, ["--config", str(path)], tmp_path)
    assert line.startswith(f"{path}{why}")


@pytest.mark.parametrize(
    ("file", "changes", "why"),
    [
        ("cpu/rec_bottle_distill.config", {"embedding_size": 7}, "its embedding_size is 8, here 7; all stages"),
        ("cpu/rec_bottle_mcl.config", {"repeat": 4}, "its repeat is 2, here 4; all stages need the same"),
        ("cpu/rec_bottle_mcl.config", {"layers_to_keep": 2}, "its layers_to_keep is 3, here 2"),
        ("cpu/rec_mcl.config", {"emb_ckp_path": "cpu_rec_bottle_distill"}, "its embedding_size is 8, here None"),
        ("cpu/rec_bottle_mcl.config", {"student_model_path": "teacher"}, "it reads another vocabulary than student_m"),
        ("cpu/rec_mcl.config", {"layers_to_keep": 9, "emb_ckp_path": None}, "layers_to_keep 9: the model has 6 layers"),
        ("cpu/rec_mcl.config", {"emb_ckp_path": "cpu_none"}, "emb_ckp_path = cpu_none: no such folder, neither here"),
        ("cpu/mse.config", {"hidden_size": 384}, "[model] hidden_size = 384: the student's is 16; mend or remove"),
        ("cpu/mse.config", {"max_seq_length": 65}, "[data] max_seq_length = 65: the student reads at most 64 tokens"),
        ("cpu/bottle_distill.config", {"embedding_size": 16}, "embedding_size 16: the model's table has 16 columns"),
    ],
)
def test_stages_that_do_not_fit(file, changes, why, trained, home, texts):
    trained("cpu/rec_bottle_mcl.config")
    trained("cpu/rec_distill.config")
    config = bad(home, file, **changes)
    assert why in refused(train.main, flags(config, home, texts, name="never"), home)


def test_a_config_may_begin_with_a_byte_order_mark(home, tmp_path):
    config, marked = tiny("cpu/mse.config", home), tmp_path / "marked.config"
    marked.write_bytes(b"\xef\xbb\xbf" + config.read_bytes().replace(b"\n", b"\r\n"))
    assert Config(marked).settings() == Config(config).settings()


def test_scripts_of_one_process_refuse_several(monkeypatch, tmp_path):
    from multistage import build_vocab

    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    argv = ("a.en-de.tsv", "--output_dir", str(tmp_path / "vocab"))
    for main, flags in ((test_script.main, ("--config", "cpu/mse.config")), (build_vocab.main, argv)):
        assert refused(main, flags, tmp_path).startswith("2 processes: this script works in one; start it without")


def test_a_teacher_of_another_width_is_refused(home, texts):
    from models.sentence_encoder import read_folder

    source = read_folder(home / "teacher")
    wide = EncoderConfig(source.reader.size, 24, 1, 4, 32, max_position_embeddings=64)
    SentenceEncoder(RecurrentEncoder(wide), source.reader, 32).save(home / "wide")
    config = bad(home, teacher_path="wide")
    line = refused(train.main, flags(config, home, texts, name="never"), home)
    assert "vectors of 16 numbers cannot learn from a teacher's of 24" in line


def test_flags_that_cannot_work(home, texts, tmp_path, monkeypatch):
    def line(*more):
        return refused(train.main, [str(value) for value in more], tmp_path)

    config = tiny("cpu/mse.config", home)
    assert line().startswith("--config is needed")
    assert line("--config", "none.config").startswith("--config none.config: no such file; shipped in config/: Disti")
    assert line("--config", config, "--gpus", 1) == "--gpus: unknown flag; did you mean --gpu? (--help lists all)"
    assert "--gpu/-g: 1.5 is not a whole number" in line("--config", config, "--gpu", "1.5")
    assert "--cache_limit_gb: -1 is not a number" in line("--config", config, "--cache_limit_gb=-1")
    assert line("--config", config, "--distributed").startswith("--distributed: one process alone; start `python -m")
    assert "with --distributed the launcher gives" in line("--config", config, "--distributed", "--gpu", 0)
    assert line("--config", config, "--data_dir", tmp_path / "none").startswith(f"{tmp_path}/none: no such folder")
    more = flags(config, home, texts, "--checkpoint", tmp_path, name="never")
    assert refused(train.main, more, home).startswith(f"--checkpoint {tmp_path}: no student there")
    (tmp_path / "file").write_text("mine")
    argv = ["--config", str(config), "--checkpoint", str(home / "teacher"), "--logdir", str(tmp_path / "file")]
    assert refused(test_script.main, argv, tmp_path) == f"--logdir {tmp_path / 'file'}: is a file, not a folder"
    monkeypatch.setattr("multistage.student.minilm_folder", lambda: home / "teacher")
    argv = ["--config", str(config), "--checkpoint", "all-MiniLM-L6-v2"]
    assert "pass --logdir RESULTS too" in refused(test_script.main, argv, tmp_path)
    argv += ["--data_dir", str(texts), "--logdir", str(tmp_path / "of minilm")]
    assert (test_script.main(argv) / "results_eval.json").is_file()
    argv = ["--config", str(config), "--seed", "1"]
    assert refused(test_script.main, argv, tmp_path).startswith("--seed: unknown flag")


def test_a_gpu_that_is_not_there_is_refused(home, texts, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = refused(train.main, flags(tiny("cpu/mse.config", home), home, texts, "--gpu", 0, name="never"), home)
    assert line.startswith("--gpu 0: ") and "leave --gpu out to run on the CPU" in line


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("no tab here", ":3: no tab"),
        ("\tein Film", ":3: the English text is empty"),
        ("a film\t", ":3: translation 1 is empty"),
        ("caf\udce9\tein Film", ":3: not UTF-8 text"),
    ],
)
def test_bad_rows_of_text(row, why, home, texts, tmp_path):
    import shutil

    data = shutil.copytree(texts, tmp_path / "data")
    file = data / "parallel" / "stsb_train.en-de.tsv"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], row.encode("utf-8", "surrogateescape"), *lines[2:]]) + b"\n")
    config = tiny("cpu/mse.config", home)
    assert refused(train.main, flags(config, home, data, name="never"), home, data).startswith(f"{file}{why}")


def test_missing_data_is_an_error_and_is_not_made(home, texts, tmp_path):
    import shutil

    data, config = shutil.copytree(texts, tmp_path / "data"), tiny("cpu/mse.config", home)
    argv = flags(config, home, data, name="never")
    (data / "stsb_multi_mt" / "stsb-fr-dev.csv").unlink()
    assert refused(train.main, argv, home, data).startswith(f"{data}/stsb_multi_mt/stsb-fr-dev.csv: no such file")
    for file in (data / "parallel").glob("stsb_dev.*"):
        file.unlink()
    line = refused(train.main, argv, home, data)
    assert f"[data] dev_files = parallel/stsb_dev.en-*.tsv: no such file in {data}; pass the folder" in line
    config = bad(home, dev_files="parallel/stsb_train.en-de.tsv")
    line = refused(train.main, flags(config, home, data, name="never"), home, data)
    assert "stands in train and in dev" in line


def test_patterns_name_each_file_once_and_may_be_absolute(home, texts, tmp_path):
    names = [f"stsb_train.en-{language}.tsv" for language in ("de", "es")]
    for patterns in ("parallel/stsb_train.*", "*/*train.en-de.tsv parallel/stsb_train.*", "**/*train.en-*.tsv"):
        found = Config(bad(tmp_path, train_files=patterns)).files("train_files", str(texts))
        assert found == [texts / "parallel" / name for name in names]
    config = bad(tmp_path, train_files=f"{texts}/parallel/{names[1]}")
    (tmp_path / "[odd]").mkdir()
    assert Config(config).files("train_files", str(tmp_path / "[odd]")) == [texts / "parallel" / names[1]]
    (tmp_path / "[odd]" / "a.en-de.tsv").touch()
    config = bad(tmp_path, train_files="a.en-*.tsv")
    assert Config(config).files("train_files", str(tmp_path / "[odd]")) == [tmp_path / "[odd]" / "a.en-de.tsv"]


def test_sizes_in_the_shipped_configs():
    """Of the finished students, in millions, the pooler counted, as they were published."""
    sizes = {
        "minilm_rec_bottle_mcl": 75.1, "minilm_rec_mcl": 101.7, "xlmr_rec_bottle_mcl": 54.3, "xlmr_rec_mcl": 235.5,
        "xlmr_rec_bottle_mse": 54.3, "xlmr_rec_bottle_bool": 54.3, "xlmr_rec_bottle_ce": 54.3,
        "ablation_wo_recursive": 118.1, "ablation_wo_all": 118.1,
    }  # fmt: skip
    for name, millions in sizes.items():
        config = Config(f"multilingual/{name}.config")
        width = config["model", "hidden_size"]
        shape = EncoderConfig(
            config["model", "vocab_size"], width, config["model", "layers_to_keep"], 12, 4 * width,
            max_position_embeddings=config["model", "max_position_embeddings"], type_vocab_size=1,
            embedding_size=config["model", "embedding_size"], repeat=config["model", "repeat"],
        )  # fmt: skip
        assert (parameter_count(shape) + width**2 + width) / 1e6 == pytest.approx(millions, abs=0.0501), name
        assert shape.num_hidden_layers * shape.repeat == 12


def commands():
    """Those of the README and of the heads of the configs, with the folder of this recipe as the working one."""
    text = (FOLDER.parent / "README.md").read_text()
    lines = [line for block in re.findall(r"```shell\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for file in SHIPPED:
        own = [line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#   python")]
        assert own == [f"python train.py --config {file.relative_to(FOLDER)} --data_dir DATA"]
        lines += own
    return lines


@pytest.mark.parametrize("command", commands())
def test_commands(command):
    from multistage import args, build_vocab
    from multistage.build_vocab_args import BuildVocabArgs

    words = command.split()
    script = next(i for i, word in enumerate(words) if word.endswith(".py"))
    if words[script] == "build_vocab.py":
        assert build_vocab.parse(BuildVocabArgs, words[script + 1 :]).output_dir.endswith("/cpu_vocab")
    else:
        found = args.parse(words[script + 1 :], "", training=words[script] == "train.py")
        assert Config(found.config).path.is_relative_to(FOLDER)


def test_the_readme_knows_every_key_flag_model_and_change():
    from multistage.args import Flags
    from multistage.config import KEYS

    text = (FOLDER.parent / "README.md").read_text()
    keys = {key for section in KEYS.values() for key in section} - {"model_name"}
    assert not [name for name in (*keys, *METHODS) if not re.search(rf"`(\[\w+\] )?{name}`", text)]
    assert not [field for field in Flags.__dataclass_fields__ if f"`--{field}" not in text]
    assert all(
        f"`{chain}`" in text for chain in ("minilm_bottle", "minilm", "xlmr_bottle", "xlmr", "cpu_bottle", "cpu")
    )


def test_new_wordpieces_start_with_what_they_translate():
    from multistage.student import translated_vectors

    table = np.arange(24, dtype=np.float32).reshape(8, 3) ** 2
    source = Encoded.from_rows([[0, 2, 1], [0, 2, 3, 1]])
    target = Encoded.from_rows([[0, 5, 1], [0, 5, 2, 6, 1]])
    changed, count = translated_vectors(table, source, target)
    t, s, p = translations(source, target)
    want = sum(float(x) * table[j].astype(np.float64) for i, j, x in zip(t, s, p, strict=True) if i == 5)
    np.testing.assert_allclose(changed[5], want, rtol=1e-6)
    assert count == 2  # 5 and 6; the English sentences have 2 themselves
    np.testing.assert_array_equal(changed[[0, 1, 2, 3, 4, 7]], table[[0, 1, 2, 3, 4, 7]])


def test_wordpieces_of_sentences_that_are_left_out_keep_their_vectors(monkeypatch):
    from distill.data import alignment
    from multistage.student import translated_vectors

    monkeypatch.setattr(alignment, "MOST_LINKS", 5)
    table = np.arange(27, dtype=np.float32).reshape(9, 3) + 1
    source = Encoded.from_rows([[0, 2, 1], [0, 3, 4, 1]])
    target = Encoded.from_rows([[0, 5, 1], [0, 6, 7, 1]])
    t, _, _ = translations(source, target)
    left = np.setdiff1d([5, 6, 7], t)
    changed, count = translated_vectors(table, source, target)
    assert len(left) and count == 3 - len(left)
    np.testing.assert_array_equal(changed[left], table[left])


def test_a_checkpoint_of_another_vocabulary_is_refused(trained, home, texts, tmp_path):
    """Its shapes are the same, and the vectors would be those of other tokens."""
    other = shutil.copytree(trained("cpu/mse.config"), tmp_path / "other")
    config = tiny("cpu/mse.config", home)
    lines = (other / "vocab.txt").read_text().splitlines()
    (other / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n")
    argv = flags(config, home, texts, "--checkpoint", other, name="never")
    assert "its student reads another vocabulary" in refused(train.main, argv, home / "never")
