"""Documents encoded, killed and continued, ranked for queries; operations counted as published."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import Tensor, nn

from distill.data.pairs import PairLayout
from distill.data.readers import Rows
from distill.data.tasks import get_task
from distill.data.wordpiece import WordPiece
from distill.encoders.folder import load_bert
from distill.errors import UserError
from distill.evaluation.flops import forward_flops
from distill.files import write_json
from models.document_store import DocumentStore, StoreWriter
from models.dual_encoder import create_dual_encoder, load_dual_encoder, save_dual_encoder
from tests.recipes import runs
from tests.tiny import FILLERS, NOUNS, make_bert_folder
from virt import encode, eval_flops, score
from virt.product_args import ScoreArgs

LENGTHS = (9, 17)
LABELS = {3: ("no", "maybe", "yes"), 1: ()}


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """students(model_type, outputs): the folder of a dual encoder with random weights."""
    home, made = tmp_path_factory.mktemp("students"), {}
    bert = make_bert_folder(home / "bert", layers=2)

    def of(model_type, outputs=3, **settings):
        key = f"{model_type} {outputs} {settings}"
        if key not in made:
            model = create_dual_encoder(model_type, load_bert(bert), outputs, seed=1, **settings)
            save_dual_encoder(home / key, model, WordPiece.from_folder(bert), LABELS[outputs], LENGTHS)
            made[key] = home / key
        return made[key]

    return of


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(FILLERS + NOUNS, rng.integers(1, 24))) for _ in range(90)]


@pytest.fixture
def corpus(tmp_path, texts):
    path = tmp_path / "corpus.tsv"
    path.write_text("id\tpassage\n" + "".join(f"d{i}\t{text}\n" for i, text in enumerate(texts)))
    return path


def encoding(student, corpus, store, *more):
    flags = ("--model_path", student, "--corpus", corpus, "--store", store, "--batch_size", 8)
    return [str(value) for value in (*flags, "--text_column", "passage", "--id_column", "id", *more)]


def scoring(student, store, *more):
    return [str(value) for value in (*more, "--model_path", student, "--store", store)]


def ranked(text):
    """{query: [(document, score)]} of what score.py writes."""
    header, *lines = text.splitlines()
    assert header == "query\trank\tdocument\tscore"
    found: dict[str, list[tuple[str, float]]] = {}
    for line in lines:
        query, rank, document, value = line.split("\t")
        found.setdefault(query, []).append((document, float(value)))
        assert int(rank) == len(found[query])
    return found


def direct(student, query, documents):
    """Logits of the query with each document, laid out as in training."""
    model = load_dual_encoder(student)
    rows = Rows([query] * len(documents), documents, None, "here")
    batch = PairLayout(*LENGTHS).encode(WordPiece.from_folder(student), rows).pad(np.arange(len(documents)))
    with paddle.no_grad():
        return model({name: paddle.to_tensor(value) for name, value in batch.items()}).numpy()


@pytest.mark.parametrize(("model_type", "outputs"), [("late_fusion", 3), ("sbert", 1)])
def test_the_best_documents_are_those_of_the_pairs_themselves(
    students, corpus, texts, tmp_path, capsys, model_type, outputs
):
    student, store = students(model_type, outputs), tmp_path / "store"
    assert encode.main(encoding(student, corpus, store)) == store
    assert "90 documents" in capsys.readouterr().out
    score.main(scoring(student, store, "the film", "a very good story", "--top_k", 100))
    found = ranked(capsys.readouterr().out)
    assert list(found) == ["1", "2"]
    logits = direct(student, "the film", texts).astype("float64")
    expected = logits[:, 0] if outputs == 1 else np.exp(logits[:, 2]) / np.exp(logits).sum(axis=1)
    scores = dict(found["1"])
    np.testing.assert_allclose([scores[f"d{i}"] for i in range(90)], expected, atol=1e-3)
    values = [value for _, value in found["1"]]
    assert values == sorted(values, reverse=True) and len(values) == 90


def test_queries_and_candidates_from_files(students, corpus, tmp_path, capsys):
    student, store = students("late_fusion"), tmp_path / "store"
    encode.main(encoding(student, corpus, store))
    queries, pairs, some, output = (tmp_path / name for name in ("q.csv", "pairs.tsv", "some.txt", "out/ranked.tsv"))
    long = "a very good story" + " and a very good story" * 9
    queries.write_text(f"name,text\nfirst,the film\nsecond,{long}\n")
    pairs.write_text("first\td3\nsecond\td4\nfirst\td80\n")
    some.write_text("d3\nd80\n")
    capsys.readouterr()
    flags = ("--queries", queries, "--query_id_column", "name")
    score.main(scoring(student, store, *flags, "--candidates", pairs, "--output", output))
    assert not capsys.readouterr().out
    by_pair = ranked(output.read_text())
    assert {query: {d for d, _ in of} for query, of in by_pair.items()} == {"first": {"d3", "d80"}, "second": {"d4"}}
    pairs.write_text("second\td4\n")
    score.main(scoring(student, store, *flags, "--candidates", pairs))
    assert ranked(capsys.readouterr().out) == {"second": by_pair["second"]}
    score.main(scoring(student, store, *flags, "--candidates", some, "--label", "no", "--top_k", 1))
    said = capsys.readouterr()
    assert re.search(r"1 of 2 queries are longer than the model's \d+ tokens and are cut", said.err)
    by_all = ranked(said.out)
    assert [len(of) for of in by_all.values()] == [1, 1] and {d for of in by_all.values() for d, _ in of} <= {
        "d3",
        "d80",
    }
    logits = direct(student, "the film", [dict(corpus_rows(corpus))[by_all["first"][0][0]]]).astype("float64")[0]
    assert by_all["first"][0][1] == pytest.approx(np.exp(logits[0]) / np.exp(logits).sum(), abs=1e-3)


@pytest.mark.parametrize(
    ("task", "label"), [("RTE", "entailment"), ("MNLI", "entailment"), ("MRPC", "1"), ("BoolQ", "true")]
)
def test_the_class_that_ranks_by_default_is_the_one_that_says_yes(task, label):
    labels = get_task(task).labels
    assert labels[score.chosen_label(ScoreArgs(), labels)] == label


def corpus_rows(corpus):
    return [line.split("\t") for line in corpus.read_text().splitlines()[1:]]


def test_a_killed_run_continues_and_gives_the_same_bytes(students, corpus, tmp_path, monkeypatch, capsys):
    student = students("late_fusion")
    monkeypatch.setattr(encode, "BLOCK", 20)
    encode.main(encoding(student, corpus, tmp_path / "whole"))

    class Dies(Exception):
        pass

    add, blocks = StoreWriter.add, []

    def dies(self, names, states):
        if len(blocks) == 2:
            raise Dies
        blocks.append(names)
        add(self, names, states)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "add", dies)
        with pytest.raises(Dies):
            encode.main(encoding(student, corpus, tmp_path / "store"))
    with pytest.raises(UserError, match="run the same command of encode.py again to complete it"):
        score.main(scoring(student, tmp_path / "store", "the film"))
    capsys.readouterr()
    encode.main(encoding(student, corpus, tmp_path / "store"))
    assert "40 of 90 documents are there, continuing" in capsys.readouterr().out
    assert runs.tree(tmp_path / "whole") and list(runs.tree(tmp_path / "whole").values()) == list(
        runs.tree(tmp_path / "store").values()
    )
    encode.main(encoding(student, corpus, tmp_path / "store"))
    assert "holds these documents" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(students, corpus, tmp_path, texts):
    student, other, store = students("late_fusion"), students("sbert", 1), tmp_path / "store"
    encode.main(encoding(student, corpus, store))
    line = runs.refused(score.main, scoring(other, store, "the film"), store)
    assert "was made by another model than" in line
    assert "--overwrite replaces them" in runs.refused(encode.main, encoding(other, corpus, store), tmp_path)
    line = runs.refused(score.main, scoring(student, store, "the film", "--label", "good"), store)
    assert line == "--label good: must be one of no, maybe, yes"
    candidates = tmp_path / "candidates.tsv"
    for text, message in (("d3\nd90\n", ":2: no document 'd90' in the store"), ("1\td3\n2\td3\n", ":2: no query '2'")):
        candidates.write_text(text)
        argv = scoring(student, store, "the film", "--candidates", candidates)
        assert runs.refused(score.main, argv, tmp_path).endswith(message)
    assert runs.refused(score.main, scoring(student, store, "the film", " "), store).startswith("a query is empty")
    argv = scoring(student, store, "the film", "--output", tmp_path)
    assert runs.refused(score.main, argv, tmp_path) == f"--output {tmp_path}: is a folder; name a file"
    argv = scoring(student, store, "the film", "--candidates", candidates, "--output", tmp_path / "." / candidates.name)
    assert runs.refused(score.main, argv, tmp_path).endswith("candidates.tsv: is --candidates; name another file")
    assert candidates.read_text() == "1\td3\n2\td3\n"
    argv = scoring(student / "model.safetensors", store, "the film")
    assert runs.refused(score.main, argv, tmp_path).endswith("a file; name the folder that sbert_distill.py made")
    queries = tmp_path / "queries.tsv"
    queries.write_text("id\ttext\nq\tone\nq\ttwo\n")
    argv = scoring(student, store, "--queries", queries, "--query_id_column", "id")
    assert runs.refused(score.main, argv, tmp_path) == f"{queries}: 'q' is the name of several queries in 'id'"
    corpus.write_text("id\tpassage\nx\tone\nx\ttwo\n")
    line = runs.refused(encode.main, encoding(student, corpus, tmp_path / "second"), tmp_path)
    assert line.endswith("'x' is the name of several documents in 'id'")
    plain = students("late_fusion", plain_mean=True)
    corpus.write_text("id\tpassage\nx\tone\n")
    assert "pools over padding" in runs.refused(encode.main, encoding(plain, corpus, tmp_path / "second"), tmp_path)
    encode.main(encoding(other, corpus, store, "--overwrite", "true"))
    assert DocumentStore(store).names == ["x"]


def test_a_home_folder_is_found_behind_an_equals_sign(students, corpus, tmp_path, monkeypatch, capsys):
    shutil.copytree(students("sbert", 1), tmp_path / "student")
    monkeypatch.setenv("HOME", str(tmp_path))
    same = ["--model_path=~/student", "--store=~/store"]
    encode.main([*same, "--corpus", str(corpus), "--text_column", "passage"])
    capsys.readouterr()
    score.main(["the film", *same, "--top_k", "1"])
    assert len(ranked(capsys.readouterr().out)["1"]) == 1 and (tmp_path / "store").is_dir()


def test_several_processes_are_refused(monkeypatch, tmp_path):
    """They would write the same files."""
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    same = ["--model_path", "m", "--store", str(tmp_path / "s")]
    for main, argv in ((encode.main, ["--corpus", "c.txt", *same]), (score.main, ["query", *same])):
        assert runs.refused(main, argv, tmp_path).startswith("2 processes: this script works in one; start it without")


@pytest.mark.parametrize(
    ("main", "flags", "message"),
    [
        (encode.main, "--store s --corpus c.tsv", "--model_path is needed: a dual encoder's folder"),
        (encode.main, "--model_path m --corpus c.tsv", "--store is needed"),
        (encode.main, "--model_path m --store s", "--corpus is needed"),
        (score.main, "--model_path m --store s", "give queries, or a file of them"),
        (score.main, "query --queries q.txt --model_path m --store s", "and not both"),
        (score.main, "query --model_path m --store s --top_k 0", "--top_k 0: must be at least 1"),
    ],
)
def test_missing_flags(main, flags, message):
    with pytest.raises(UserError, match=message):
        main(shlex.split(flags))


def gflops(capsys, *flags):
    found = eval_flops.main([str(flag) for flag in flags])
    return {part: value / 1e9 for part, value in found.items()}, capsys.readouterr().out


def test_published_operations_of_bert_base(capsys):
    """11.0 for a query of 64 tokens beside 72.1 for the pair read together: 6.5 times fewer; half at 130 tokens."""
    found, printed = gflops(capsys, "--model_type", "late_fusion")
    assert round(found["query tower"], 1) == 11.0 and round(found["document tower, once a document"], 1) == 59.7
    assert round(found[eval_flops.CROSS], 1) == 72.1
    assert round(found[eval_flops.CROSS] / found["a pair, its document read before"], 1) == 6.5
    assert re.search(r"a pair, its document read before +11.07\d+ GFLOP +the cross-encoder's / 6.5", printed)


def test_published_operations_at_130_tokens(tmp_path, capsys):
    """Of one layer of BERT-base, times 12: 22.7 beside 46.5."""
    bert = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 3072}
    write_json(tmp_path / "bert_config.json", bert)
    flags = ("--bert_config_file", tmp_path / "bert_config.json", "--max_seq_length_sbert", 130, "--task_name", "mnli")
    found, _ = gflops(capsys, "--model_type", "sbert", *flags)
    assert round(12 * found["query tower"], 1) == 22.7 and round(12 * found[eval_flops.CROSS], 1) == 46.5
    assert 0.48 < found["a pair, its document read before"] / found[eval_flops.CROSS] < 0.5


class AsWritten(nn.Layer):
    """Both directions of late fusion with the four matrix products of its formula."""

    def forward(self, query: Tensor, document: Tensor) -> Tensor:
        def read(x: Tensor, y: Tensor) -> Tensor:
            return paddle.matmul(nn.functional.softmax(paddle.matmul(x, y, transpose_y=True)), y).mean(axis=1)

        return read(query, document) + read(document, query)


@pytest.mark.parametrize(("first", "second", "expected"), [(130, 130, 0.104), (64, 328, 0.129)])
def test_published_operations_of_the_interaction_as_written(first, second, expected):
    shapes = {"query": ((1, first, 768), "float32"), "document": ((1, second, 768), "float32")}
    assert round(forward_flops(AsWritten(), shapes) / 1e9, 3) == expected


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A BERT of 3 layers, H = 24, I = 48."""
    return make_bert_folder(tmp_path_factory.mktemp("config"), layers=3, hidden=24) / "config.json"


H, A, B = 24, 10, 20


def tower(tokens, layers=3):
    return layers * 2 * tokens * (4 * H**2 + 2 * H * 2 * H + 2 * tokens * H)


def test_operations_by_hand(config, capsys):
    """Of each part; what is between is their sum."""
    late = 2 * A * B * H + 2 * (A * B + B * A) + 2 * (B * H + A * H)
    masks = 2 * A * B * 2
    by_hand = {
        "late_fusion": (tower(A), tower(B), late + masks + 2 * (16 * H**2 + 4 * H * 2)),
        "sbert": (tower(A) + 2 * A * H, tower(B) + 2 * B * H, 2 * 4 * H * 2),
        "bi_encoder": (tower(A) + 2 * A * H, tower(B) + 2 * B * H, 2 * 2 * H * 2),
        "poly": (tower(A) + 2 * A * H, tower(B) + 2 * 5 * B * H, 2 * (5 * H + 5 * H) + 2 * H * 2),
        "col": (
            tower(A) + 2 * A * (H * 6 + 6 * 12),
            tower(B) + 2 * B * (H * 6 + 6 * 12),
            2 * 2 * A * B * 6 + 2 * 2 * A,
        ),
        "deformer": (tower(A, 2), tower(B, 2), tower(A + B, 1) + 2 * (A + B) * H + 2 * H * 2),
        "dipair": (tower(A) + 2 * 8 * A * H, tower(B) + 2 * 16 * B * H, tower(24, 1) + 2 * 24 * H + 2 * H * 2),
    }
    flags = ("--bert_config_file", config, "--max_seq_length_query", A, "--max_seq_length_doc", B)
    for model_type, (query, document, rest) in by_hand.items():
        found = eval_flops.main(
            [str(x) for x in ("--model_type", model_type, *flags, "--poly_first_m", 5, "--colbert_dim", 6)]
        )
        parts = ("query tower", "document tower, once a document", "interaction and head")
        assert [found[part] for part in parts] == [query, document, rest], model_type
        assert found["a pair"] == query + document + rest
        assert found["a pair, its document read before"] == query + rest
        assert found["a further document for the query"] == rest
        assert found[eval_flops.CROSS] == tower(A + B - 1) + 2 * (A + B - 1) * H + 2 * H * 2


def test_the_cross_encoder_alone_and_what_is_too_long(config, capsys):
    found, printed = gflops(capsys, "--model_type", "bert", "--bert_config_file", config, "--max_seq_length_sbert", 32)
    assert list(found) == [eval_flops.CROSS] and printed.startswith("bert, 32 and 32 tokens\n")
    with pytest.raises(UserError, match="33 and 33 tokens are read as 65, and the BERT reads at most 64"):
        eval_flops.main(["--bert_config_file", str(config), "--max_seq_length_sbert", "33"])


PUBLISHED = """--task_name=boolq --pooling_strategy=mean --do_train=false --do_eval=true --do_predict=false
    --data_dir=$MY_DATASET --vocab_file=$BERT_MODEL_DIR/vocab.txt --bert_config_file={config}
    --init_checkpoint=$BERT_MODEL_DIR/bert_model.ckpt --max_seq_length_query={first} --max_seq_length_doc={second}
    --train_batch_size=1 --learning_rate=5e-5 --test_flie_name=None --num_train_epochs=5.0 --do_save=false
    --output_dir=$OUTPUT"""


@pytest.mark.parametrize(
    "script", sorted(Path(eval_flops.__file__).parent.glob("eval_flops_*.sh")), ids=lambda p: p.stem
)
def test_scripts_name_their_type_and_take_the_published_flags(script, config, capsys):
    called = shlex.split(script.read_text().splitlines()[-1])
    assert called[:2] == ["exec", "python"] and called[2].endswith("/../virt/eval_flops.py") and called[-1] == "$@"
    assert called[3:5] == ["--model_type", script.stem.removeprefix("eval_flops_")]
    argv = [*called[3:5], *shlex.split(PUBLISHED.format(config=config, first=A, second=B))]
    assert eval_flops.main(argv)[eval_flops.CROSS] == tower(A + B - 1) + 2 * (A + B - 1) * H + 2 * H * 2


def test_there_is_a_script_for_each_type():
    from models.dual_encoder import MODEL_TYPES

    names = {path.stem.removeprefix("eval_flops_") for path in Path(eval_flops.__file__).parent.glob("eval_flops_*.sh")}
    assert names == {*MODEL_TYPES, "bert"} and shutil.which("bash")
