"""data_augmentation.py from end to end, and its steps against the published algorithm, worked out word by word."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddlenlp.transformers import BertForMaskedLM

from data_augmentation import candidates, data, data_augmentation, work
from data_augmentation.args import AugmentArgs
from data_augmentation.data import STOP_WORDS, Reader
from distill.cli import parse
from distill.data.augmented import augmented_path, load_augmented
from distill.data.tasks import get_task, load_rows, load_task
from distill.data.vectors import compose_words, unit_length
from distill.data.wordpiece import WordPiece
from distill.data.words import BasicTable, is_dropped
from distill.encoders import inference
from distill.encoders.folder import word_embeddings
from distill.encoders.masked_lm import MaskedLM
from distill.options import TaskOptions, TeacherOptions
from distill.teachers.teacher import Teacher
from distill_lstm import bert_distill
from tests.recipes.runs import lstm, read, refused, taught
from tests.tiny import SPECIAL, VOCAB, keep_one_token_type, make_glue_data, make_masked_lm_folder
from tinybert import task_distill

SCRIPT = Path(data_augmentation.__file__)


@pytest.fixture(scope="session")
def masked(home):
    """A tiny BERT with a masked-LM head."""
    return make_masked_lm_folder(home / "masked")


@pytest.fixture
def place(data_dir, tmp_path):
    """A copy of the data that may be written to."""
    return shutil.copytree(data_dir, tmp_path / "data")


def flags(place, model, task="SST-2", *more):
    cache = ("--cache_dir", Path(place).parent / "cache")
    both = ("--task_name", task, "--data_dir", place, "--pretrained_bert_model", model, *cache, *more)
    return [str(value) for value in both]


def augmented(place, model, task="SST-2", *more):
    return data_augmentation.main(flags(place, model, task, *more))


def rows_of(place, task):
    return load_rows(TaskOptions(task_name=task, data_dir=str(place)), get_task(task), "train")


def groups(place, task):
    """For each training row the rows that were made of it, itself first; the file holds no others."""
    source = rows_of(place, task)
    rows = load_augmented(get_task(task), TaskOptions(task_name=task, data_dir=str(place)))
    texts = list(zip(*[column for column in (rows.text_a, rows.text_b) if column is not None], strict=True))
    own = list(zip(*[column for column in (source.text_a, source.text_b) if column is not None], strict=True))
    starts, at = [], 0
    for text in own:
        at = texts.index(text, at)
        starts.append(at)
        at += 1
    assert starts[0] == 0
    ends = [*starts[1:], len(texts)]
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        assert (rows.labels[start:end] == source.labels[i]).all()
    return [texts[start:end] for start, end in zip(starts, ends, strict=True)]


# From end to end


@pytest.mark.parametrize(("task", "tries"), [("SST-2", 20), ("MRPC", 30), ("STS-B", 30)])
def test_every_row_comes_from_its_own_source(task, tries, place, masked):
    path = augmented(place, masked, task)
    assert path == place / task / "train_aug.tsv"
    made = groups(place, task)
    for own, *others in made:
        assert len(set(others)) == len(others) <= tries * len(own) and own not in others
        for other in others:
            (side,) = [s for s in range(len(own)) if own[s] != other[s]]  # one text is new, its partner the row's own
            words, new = own[side].split(), other[side].split()
            assert len(words) == len(new)
            assert all(a == b or (a.isalpha() and a not in STOP_WORDS) for a, b in zip(words, new, strict=True))
    assert sum(len(group) for group in made) > 5 * len(made)
    if task != "SST-2":  # both texts of a pair have copies
        sides = {tuple(a == b for a, b in zip(group[0], other, strict=True)) for group in made for other in group[1:]}
        assert sides == {(True, False), (False, True)}
    facts = read(place / task / "train_aug" / "run.json")
    assert facts["finished"] and facts["kept"] == facts["made"] == sum(len(group) - 1 for group in made)
    assert sorted(file.name for file in (place / task / "train_aug").iterdir()) == ["run.json", "run.yaml"]


def test_no_probability_changes_nothing(place, masked):
    augmented(place, masked, "MRPC", "--p", 0)
    assert [len(group) for group in groups(place, "MRPC")] == [1] * 96


def published_candidates(model, wordpiece, words, i, m):
    """Of a word of one piece, by a pass of its own in float64: the best m, parts of words left out."""
    pieces = [wordpiece.pieces([word])[0] for word in words]
    plain = [piece for of_word in pieces for piece in of_word]
    at = sum(map(len, pieces[:i]))
    shown = [*plain[:at], wordpiece.mask_id, *plain[at + 1 :]]
    ids = [wordpiece.cls_id, *shown, wordpiece.sep_id, *plain, wordpiece.sep_id]
    types = [0] * (len(plain) + 2) + [1] * (len(plain) + 1)
    with paddle.no_grad():
        visible = paddle.zeros([1, 1, 1, len(ids)], "float64")
        logits = model(paddle.to_tensor([ids]), paddle.to_tensor([types]), attention_mask=visible).numpy()
    best = np.argsort(-logits.reshape(len(ids), -1)[at + 1])[:m]
    return {wordpiece.tokens[b] for b in best if not wordpiece.tokens[b].startswith("##")} - set(SPECIAL)


def test_candidates_are_the_published_ones_and_p_1_replaces_every_word(place, masked):
    """With p = 1 and many tries each place shows all its candidates and nothing else."""
    augmented(place, masked, "SST-2", "--p", 1, "--N", 400, "--M", 6)
    wordpiece = WordPiece.from_folder(masked)
    model = BertForMaskedLM.from_pretrained(str(masked)).to(dtype="float64")
    model.eval()
    table = word_embeddings(masked)
    lexicon = [token for token in VOCAB if token.isalpha() and token not in STOP_WORDS]
    vectors = unit_length(compose_words(lexicon, wordpiece, table)).astype(np.float64)
    several = 0
    for (text,), *others in groups(place, "SST-2")[:25]:
        words = text.split()
        shown = [{other[0].split()[i] for other in others} for i in range(len(words))]
        for i, word in enumerate(words):
            if not word.isalpha() or word in STOP_WORDS:
                expected = {word}
            elif word in VOCAB:
                expected = published_candidates(model, wordpiece, words, i, 6) or {word}
            else:
                cosines = vectors @ unit_length(compose_words([word], wordpiece, table))[0]
                expected, several = {lexicon[j] for j in np.argsort(-cosines)[:6]}, several + 1
            assert shown[i] == expected, (text, word)
    assert several > 2


def test_each_word_is_replaced_with_probability_p(place, masked):
    wordpiece = WordPiece.from_folder(masked)
    (sentence,) = Reader(wordpiece, "en")(["film story plot movie cast scene music book actor ending"])
    proposed = [[f"new{i}", f"other{i}"] for i in range(10)]
    made = [data.copies(sentence, proposed, 1, 0.4, 7, row, 0) for row in range(3000)]
    words = [(texts[0] if texts else sentence.text()).split() for texts in made]
    replaced = np.array([[word != own for word, own in zip(row, sentence.words, strict=True)] for row in words])
    assert abs(replaced.mean(axis=0) - 0.4).max() < 0.035 and abs(replaced.mean() - 0.4) < 0.01
    assert np.abs(np.corrcoef(replaced.T) - np.eye(10)).max() < 0.08  # independently
    first = [word.startswith("new") for row in words for word in row if word[-1].isdigit()]
    assert abs(np.mean(first) - 0.5) < 0.02
    assert data.copies(sentence, proposed, 30, 0.4, 7, 1, 0) != data.copies(sentence, proposed, 30, 0.4, 7, 1, 1)
    assert data.copies(sentence, proposed, 5, 0.4, 7, 1, 0) == data.copies(sentence, proposed, 30, 0.4, 7, 1, 0)[:5]


def test_batch_size_changes_nothing_and_the_seed_does(place, masked):
    one = augmented(place, masked).read_bytes()
    for batch_size in (1, 7):
        assert augmented(place, masked, "SST-2", "--overwrite", "--batch_size", batch_size).read_bytes() == one
    assert augmented(place, masked, "SST-2", "--overwrite", "--seed", 1).read_bytes() != one


@pytest.mark.parametrize("mode", ["per_word", "single_pass"])
def test_equal_sentences_are_read_once(mode, tmp_path, masked, monkeypatch):
    folder = tmp_path / "data" / "SST-2"
    folder.mkdir(parents=True)
    lines = ["a good film\t1", "the story is a story\t0", "A  Good FILM\t0", "of the\t1"] * 30
    (folder / "train.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    asked, best = [], MaskedLM.best

    def counting(self, sequences, blanks, *more):
        asked.append((len(sequences), len(blanks)))
        return best(self, sequences, blanks, *more)

    monkeypatch.setattr(MaskedLM, "best", counting)
    augmented(tmp_path / "data", masked, "SST-2", "--mlm_mode", mode)
    # Two distinct sentences with two open words each; single_pass then looks at both modes of both once more.
    assert asked == ([(4, 4)] if mode == "per_word" else [(2, 4), (2, 4), (4, 4)])
    assert [len(group) > 1 for group in groups(tmp_path / "data", "SST-2")] == [True, True, True, False] * 30


def test_single_pass_is_exact_for_one_word_and_reports_its_overlap(place, masked, capsys):
    lines = (place / "SST-2" / "train.tsv").read_text().splitlines()
    singles = [f"the {word} of the\t1" for word in ("film", "story", "plot", "cast")]
    (place / "SST-2" / "train.tsv").write_text("\n".join([lines[0], *singles]) + "\n")
    exact = augmented(place, masked).read_bytes()
    assert augmented(place, masked, "SST-2", "--overwrite", "--mlm_mode", "single_pass").read_bytes() == exact
    assert (
        "single_pass in fp32: 100.0% of its words are those of per_word in fp32 (4 sentences)"
        in capsys.readouterr().out
    )
    (place / "SST-2" / "train.tsv").write_text("\n".join([*lines, *singles]) + "\n")
    exact = augmented(place, masked, "SST-2", "--overwrite").read_bytes()
    assert augmented(place, masked, "SST-2", "--overwrite", "--mlm_mode", "single_pass").read_bytes() != exact
    assert 0.2 < read(place / "SST-2" / "train_aug" / "run.json")["overlap"] < 1
    assert "masked LM" in capsys.readouterr().out


def test_bf16_reports_its_overlap_and_is_its_batch_sizes_own(place, masked, teachers, monkeypatch, capsys):
    """On any processor: the graph in bfloat16 is replaced by one that rounds the logits to eight bits."""

    def rounded(layer, inputs, precision):
        assert precision == "bf16"
        run = inference.eager(layer, inputs)

        def rounding(batch):
            mantissa, exponent = np.frexp(run(batch)[0])
            return [np.ldexp(mantissa.round(2), exponent)]

        return rounding

    monkeypatch.setattr(inference, "require", lambda precision: None)
    with monkeypatch.context() as patch:
        patch.setattr(inference, "compiled", rounded)
        augmented(place, masked, "SST-2", "--forward_precision", "bf16")
    found = read(place / "SST-2" / "train_aug" / "run.json")["overlap"]
    assert 0.5 < found < 1
    assert f"per_word in bf16: {found:.1%} of its words are those of per_word in fp32" in capsys.readouterr().out
    other = flags(place, masked, "SST-2", "--forward_precision", "bf16", "--batch_size", 7)
    assert "batch_size 64 there, 7 now" in refused(data_augmentation.main, other, place)
    headless = flags(place, teachers("SST-2"), "MRPC", "--forward_precision", "bf16")
    assert "has no masked-LM head, so no passes are made; leave the flag out" in refused(
        data_augmentation.main, headless, place
    )


# Sentences


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["en", "zh"]))
def test_a_text_is_put_together_as_it_was(text, language):
    (sentence,) = reader_of(language)([text])
    visible = "".join(" " if c in "\t\r\n" else c for c in text if not is_dropped(c))
    assert sentence.text() == visible
    assert len(sentence.gaps) == len(sentence.words) + 1 and not "".join(sentence.gaps).strip()
    if language == "en":
        assert sentence.words == BasicTable(lowercase=False).words(text)
    if sentence.open:
        i = sentence.open[0]
        assert sentence.text({i: "X"}) == sentence.text({i: "Y"}).replace("Y", "X") or "X" in text or "Y" in text


READERS = {}


def reader_of(language):
    if language not in READERS:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "vocab.txt").write_text("\n".join([*VOCAB, *"好看电影难喜欢讨厌"]), encoding="utf-8")
            READERS[language] = Reader(WordPiece(Path(folder) / "vocab.txt", True), language)
    return READERS[language]


def test_open_words():
    (sentence,) = reader_of("en")(["The FILM's 2nd story, don't care-free café isn't GOOD!"])
    assert [sentence.words[i] for i in sentence.open] == ["FILM", "story", "care", "free", "GOOD"]
    assert sentence.text({sentence.open[0]: "Plot"}) == "The Plot's 2nd story, don't care-free café isn't GOOD!"
    (sentence,) = reader_of("zh")(["这部电影不好看， I love it 2次"])
    assert [sentence.words[i] for i in sentence.open] == ["电影", "好看"]


@pytest.mark.parametrize("mode", ["per_word", "single_pass"])
def test_sentences_of_any_length_are_read(mode):
    reader = reader_of("en")
    wordpiece, rng = reader.wordpiece, np.random.default_rng(0)
    for words in (3, 28, 29, 30, 31, 90):
        (sentence,) = reader([" ".join(rng.choice(["film", "wonderful", "the", "painful", "story"], words))])
        asked = [i for i in sentence.open if len(sentence.pieces[i]) == 1]
        flat = [piece for pieces in sentence.pieces for piece in pieces]
        found = list(candidates.sequences(sentence, asked, mode, wordpiece, 64))
        blanks = [blank for _, _, blanks in found for blank in blanks]
        assert len(blanks) == len(asked) and (mode == "single_pass" or len(found) == len(asked))
        seen = iter(asked)
        for ids, types, places in found:
            assert len(ids) == len(types) == min(2 * len(flat) + 3, 63) and ids[0] == wordpiece.cls_id
            half = len(ids) // 2  # [CLS] x [SEP] | y [SEP]
            assert ids[half] == ids[-1] == wordpiece.sep_id and types == [0] * (half + 1) + [1] * half
            masked, plain = ids[1:half], ids[half + 1 : -1]
            assert " ".join(map(str, plain)) in " ".join(map(str, flat))
            shown = {place - 1: sentence.pieces[next(seen)][0] for place, length in places if length == 1}
            assert [i for i, piece in enumerate(masked) if piece == wordpiece.mask_id] == sorted(shown)
            assert [shown.get(i, piece) for i, piece in enumerate(masked)] == plain


def test_words_of_several_characters_are_masked_whole():
    reader = reader_of("zh")
    (sentence,) = reader(["电影好看"])
    one, other = candidates.sequences(sentence, [0, 1], "per_word", reader.wordpiece, 64)
    mask = reader.wordpiece.mask_id
    assert (one[0][1:5].count(mask), one[2]) == (2, [(1, 2)]) and (other[0][3:5], other[2]) == ([mask] * 2, [(3, 2)])


# Vectors


def test_words_of_several_pieces_take_their_neighbours_of_the_file(place, masked, capsys):
    """wonderful, lovely and charming stand together in the file, painful alone with a number; boring is not in it."""
    vectors = {"wonderful": (1, 0), "lovely": (1, 0.1), "charming": (1, 0.3), "painful": (0, 1), "Lovely": (1, 0.1)}
    path = place / "v.txt"
    path.write_text("".join(f"{word} {a} {b}\n" for word, (a, b) in vectors.items()) + "17 0.1 1\n")
    augmented(place, masked, "SST-2", "--glove_embs", path, "--p", 1, "--N", 60, "--M", 2)
    assert f"words of several pieces: neighbours in {path}" in capsys.readouterr().out
    expected = {
        "wonderful": {"lovely", "Lovely"}, "lovely": {"wonderful", "charming"}, "charming": {"lovely", "Lovely"},
        "painful": {"17", "charming"}, "boring": {"boring"},
    }  # fmt: skip
    seen = set()
    for (text,), *others in groups(place, "SST-2"):
        for i, word in enumerate(text.split()):
            if word in expected and others:
                seen.add(word)
                assert {other[0].split()[i] for other in others} <= expected[word]
    assert seen == set(expected)


def test_capitals_are_kept():
    (sentence,) = reader_of("en")(["Film FILM film Wonderful wonderful"])
    near = {word: ["lovely"] for word in ("Film", "FILM", "film", "Wonderful", "wonderful")}
    proposed = candidates.proposals(sentence, None, np.empty((0, 0)), near)
    assert proposed == [["Lovely"], ["LOVELY"], ["lovely"], ["Lovely"], ["lovely"]]


def test_copies_differ_in_more_than_capitals(masked, tmp_path):
    """The masked LM proposes a word itself too, which has no capitals in its vocabulary."""
    place = make_glue_data(tmp_path / "data", rows=24)
    train = place / "SST-2" / "train.tsv"
    header, *rows = train.read_text().splitlines()
    train.write_text("\n".join([header, *(row.upper() for row in rows)]) + "\n")
    augmented(place, masked, "SST-2", "--M", len(VOCAB), "--N", 60)
    texts = [[text for (text,) in group] for group in groups(place, "SST-2")]
    assert all(text == text.upper() for group in texts for text in group)
    assert all(len({text.lower() for text in group}) == len(group) for group in texts)
    assert sum(map(len, texts)) > 24 * 30


@pytest.mark.parametrize("vectors", [False, True])
def test_without_a_head_the_neighbours_serve_and_it_is_said(vectors, place, encoder, capsys):
    path = place / "v.txt"
    path.write_text("film 1 0\nmovie 1 0.1\nstory 0 1\nplot 0.1 1\n")
    augmented(place, encoder, "SST-2", *(("--glove_embs", path, "--M", 1) if vectors else ()))
    source = str(path) if vectors else f"the wordpiece table of {encoder}"
    line = f"{encoder} has no masked-LM head: every word's candidates are its neighbours in {source}"
    assert line in capsys.readouterr().out
    made = groups(place, "SST-2")
    pairs = {
        (a, b) for (text,), *others in made for (other,) in others
        for a, b in zip(text.split(), other.split(), strict=True) if a != b
    }  # fmt: skip
    if vectors:
        assert pairs == {("film", "movie"), ("movie", "film"), ("story", "plot"), ("plot", "story")}
    else:
        assert len(pairs) > 50


# Chinese


@pytest.fixture(scope="session")
def chinese_rows(home):
    folder = home / "zh aug" / "ChnSentiCorp"
    folder.mkdir(parents=True)
    words = ["好看", "难看", "喜欢", "讨厌", "精彩", "无聊"]
    lines = [f"{i % 2}\t这家 酒店{words[i % 6]}，iPhone 6 我们第{i}次住, 人多" for i in range(24)]
    text = "label\ttext_a\n" + "\n".join(lines) + "\n"
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text(text, encoding="utf-8")
    letters = sorted({c for c in text + "电影房间服务高兴满意开心难过失望商场超市" if "\u4e00" <= c <= "\u9fff"})
    return home / "zh aug", [*SPECIAL, *letters, *"0123456789,", *(f"##{i}" for i in range(10)), "iphone"]


@pytest.mark.parametrize("mode", ["per_word", "single_pass"])
def test_chinese_words_by_the_masked_lm(mode, chinese_rows, tmp_path, capsys):
    """Whole words give way to dictionary words of as many characters; all else stays, spaces too."""
    import jieba

    place = shutil.copytree(chinese_rows[0], tmp_path / "data")
    model = make_masked_lm_folder(tmp_path / "model", chinese_rows[1])
    augmented(place, model, "ChnSentiCorp", "--N", 10, "--mlm_mode", mode)
    assert "words of up to" in capsys.readouterr().out
    made = groups(place, "ChnSentiCorp")
    known, changed = set(chinese_rows[1]), set()
    for (text,), *others in made:
        (sentence,) = Reader(WordPiece.from_folder(model), "zh")([text])
        assert len(others) > 1 and {"酒店"} <= {sentence.words[i] for i in sentence.open}
        for (other,) in others:
            assert len(other) == len(text)
            at = 0
            for i, (word, gap) in enumerate(zip(sentence.words, sentence.gaps[1:], strict=True)):
                new = other[at : at + len(word)]
                if new != word:
                    changed.add(word)
                    assert i in sentence.open and jieba.dt.FREQ[new] and set(new) <= known
                assert other[at + len(word) : at + len(word) + len(gap)] == gap
                at += len(word) + len(gap)
    assert {"酒店", "好看"} <= changed


@pytest.mark.parametrize("source", ["vectors", "table"])
def test_chinese_neighbours(source, chinese_rows, tmp_path):
    place = shutil.copytree(chinese_rows[0], tmp_path / "data")
    masked = make_masked_lm_folder(tmp_path / "model", chinese_rows[1])
    model, more = masked, ()
    if source == "vectors":
        path = tmp_path / "v.txt"
        path.write_text("酒店 1 0\n宾馆 1 0.1\n好看 0 1\n漂亮 0.1 1\n", encoding="utf-8")
        more = ("--glove_embs", path, "--M", 1, "--p", 1)
    else:
        from distill.encoders.folder import load_bert, save_bert

        model = tmp_path / "plain"
        save_bert(load_bert(masked), model, WordPiece.from_folder(masked))
    augmented(place, model, "ChnSentiCorp", "--N", 5, *more)
    text = (place / "ChnSentiCorp" / "train_aug.tsv").read_text(encoding="utf-8")
    assert len(text.splitlines()) > 40
    assert ("宾馆漂亮" in text) == (source == "vectors")


def test_chinese_pairs_of_your_own(chinese_rows, tmp_path):
    """csv as spreadsheets write it; each copy changes one text and keeps the other, and all of it is read again."""
    model = make_masked_lm_folder(tmp_path / "model", chinese_rows[1])
    words = ("好看", "难看", "喜欢", "讨厌", "精彩", "无聊")
    pairs = [(f"{i}酒店{word}，人多", f'{i}"{word}"的酒店\t好') for i, word in enumerate(words)]
    train = tmp_path / "train.csv"
    with open(train, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("same", "query", "title"), *((i % 2, *pair) for i, pair in enumerate(pairs))])
    columns = {"text_column": "query", "text_pair_column": "title", "label_column": "same"}
    more = [part for name, column in columns.items() for part in (f"--{name}", column)]
    argv = ["--train_file", train, "--pretrained_bert_model", model, "--cache_dir", tmp_path / "cache", "--N", 5, *more]
    assert data_augmentation.main([str(value) for value in argv]) == tmp_path / "train_aug.tsv"
    options = TaskOptions(train_file=str(train), **columns)
    rows = load_augmented(load_task(options), options)
    own = [(first, second.replace("\t", " ")) for first, second in pairs]
    found = list(zip(rows.text_a, rows.text_b, rows.labels.tolist(), strict=True))
    changed = [0, 0]
    for first, second, label in found:
        number = int(first[0])
        assert second[0] == first[0] and label == number % 2 and [len(first), len(second)] == [8, 10]
        new = [text != before for text, before in zip((first, second), own[number], strict=True)]
        assert sum(new) == ((first, second) != own[number])
        changed = [count + is_new for count, is_new in zip(changed, new, strict=True)]
    assert min(changed) > 6 and len(found) == 6 + sum(changed)


def test_an_encoder_of_another_language(chinese_rows, masked, tmp_path, capsys):
    place = shutil.copytree(chinese_rows[0], tmp_path / "data")
    augmented(place, masked, "ChnSentiCorp", "--N", 2)
    assert f"{masked} has no whole Chinese words in its vocabulary" in capsys.readouterr().out


# The teacher's confidence


def test_only_confident_copies_are_kept(place, masked, teachers, tmp_path, capsys):
    everything = augmented(place, masked).read_text().splitlines()
    more = ("--keep_confidence", 0.52, "--teacher_path", teachers("SST-2"), "--max_seq_length", 32)
    kept = augmented(place, masked, "SST-2", "--overwrite", *more).read_text().splitlines()
    facts = read(place / "SST-2" / "train_aug" / "run.json")
    assert (facts["made"], facts["kept"]) == (len(everything) - 97, len(kept) - 97)
    assert 0.05 < facts["kept"] / facts["made"] < 0.95
    share = f"{facts['kept'] / facts['made']:.1%} of {facts['made']:,}"
    assert f"96 rows and {facts['kept']:,} copies ({share})" in capsys.readouterr().out
    teacher = Teacher(teachers("SST-2"), get_task("SST-2"), 32, TeacherOptions(cache_dir=str(tmp_path / "other")))

    def chances(texts):
        logits = teacher.forward(teacher.wordpiece.encode(texts, None, 32).pad(np.arange(len(texts))))["logits"]
        logits = logits.astype(np.float64)
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    remaining = iter(kept[1:])
    for line in everything[1:]:
        text = line.split("\t")[0]
        if text in set(rows_of(place, "SST-2").text_a):
            label = chances([text])[0].argmax()
            assert next(remaining) == line
        elif chances([text])[0][label] >= 0.52:
            assert next(remaining) == line
    assert next(remaining, None) is None


def test_the_distillation_that_follows_asks_the_teacher_nothing(place, masked, teachers, monkeypatch):
    teacher = teachers("SST-2")
    more = ("--keep_confidence", 0.52, "--teacher_path", teacher, "--max_seq_length", 32, "--N", 2)
    augmented(place, masked, "SST-2", *more)
    monkeypatch.setattr(Teacher, "_forward", None)
    more = ("--student_layers", 1, "--pred_distill", "--prediction_epochs", 1, "--use_aug")
    folder = task_distill.main(taught(place, teacher, place.parent / "run", "SST-2", *more))
    assert read(folder / "run.json")["train_rows"] > 96


def test_confidence_by_hand():
    logits = np.log([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]]).astype(np.float32)
    own = np.array([0, 0, 0, 1, 1, 1])  # the second row's class is 1, and it stays though it is below the bound
    assert data.stays_confident(logits, own, 0.69).tolist() == [True, True, False, True, True, False]


# Killed runs, several ranks


@pytest.mark.parametrize("where", ["answers", "copies"])
def test_interrupted_and_continued(where, place, masked, monkeypatch):
    monkeypatch.setattr(candidates, "_BLOCK_TOKENS", 500)
    monkeypatch.setattr(data_augmentation, "ROWS", 20)
    whole = augmented(place, masked, "MRPC").read_bytes()
    shutil.rmtree(place / "MRPC" / "train_aug")
    (place / "MRPC" / "train_aug.tsv").unlink()
    kind, done = {"answers": work.Answers, "copies": work.Parts}[where], []
    real = kind.write

    def dies(self, number, *values):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(number)
        real(self, number, *values)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            augmented(place, masked, "MRPC")
    assert not (place / "MRPC" / "train_aug.tsv").exists()
    (place / "MRPC" / ".train_aug.tsv.123.tmp").write_text("half of the rows")  # killed while it joined the parts
    again = []

    def counts(self, number, *values):
        again.append(number)
        real(self, number, *values)

    monkeypatch.setattr(kind, "write", counts)
    assert augmented(place, masked, "MRPC").read_bytes() == whole
    assert len(again) > 1 and not set(again) & set(done)
    assert read(place / "MRPC" / "train_aug" / "run.json")["resumed"] == 1
    assert not list((place / "MRPC").glob(".*"))


def start(argv, *launch, cwd):
    command = [sys.executable, *launch, str(SCRIPT), *argv]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_on_two_ranks(masked, tmp_path):
    """Killed after its first answers, then continued by two ranks: the bytes of one undisturbed process."""
    place = make_glue_data(tmp_path / "data", rows=1200)
    argv, folder = flags(place, masked), place / "SST-2" / "train_aug"
    process = start(argv, cwd=tmp_path)
    until = time.monotonic() + 120
    while not list(folder.glob("checkpoints/answers-*.npy")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (place / "SST-2" / "train_aug.tsv").exists()
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "logs"))
    process = start(argv, *launch, cwd=tmp_path)
    out, err = process.communicate(timeout=300)
    logs = "".join(path.read_text() for path in sorted((tmp_path / "logs").glob("workerlog.*")))
    assert process.returncode == 0, out + err + logs
    assert "parts are there, continuing" in logs
    shared = augmented_path(get_task("SST-2"), place).read_bytes()
    assert augmented(place, masked, "SST-2", "--overwrite").read_bytes() == shared


# Refusals


def test_a_finished_file_is_left_alone_and_another_is_not_replaced(place, masked, capsys):
    path = augmented(place, masked, "SST-2", "--N", 3)
    before = path.stat().st_mtime_ns
    assert augmented(place, masked, "SST-2", "--N", 3) == path and path.stat().st_mtime_ns == before
    assert f"{path} holds these rows already" in capsys.readouterr().out
    line = refused(data_augmentation.main, flags(place, masked, "SST-2", "--N", 4), place)
    assert line == f"{path}: made, or begun, with other settings (N 3 there, 4 now); --overwrite makes it again"
    path.unlink()  # the record alone is not the file
    augmented(place, masked, "SST-2", "--N", 3)
    assert path.exists()
    shutil.rmtree(place / "SST-2" / "train_aug")
    line = refused(data_augmentation.main, flags(place, masked, "SST-2", "--N", 3), place)
    assert line == f"{path}: not made by this script; move it away, or pass --overwrite to replace it"


def test_published_numbers_of_copies():
    from data_augmentation.args import COPIES

    expected = "CoLA 30 MNLI 10 MRPC 30 SST-2 20 STS-B 30 QQP 10 QNLI 20 RTE 30".split()
    assert [str(x) for pair in COPIES.items() for x in pair] == expected
    assert all(get_task(name).name == name for name in COPIES)
    args = parse(AugmentArgs, ["--glue_dir", "x", "--glove_embs", "glove/glove.6B.300d.txt", "--task_name", "STS-B"])
    assert (args.N, args.M, args.p, args.data_dir, args.mlm_mode) == (None, 15, 0.4, "x", "per_word")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--glove_embs", "none.txt"), "--glove_embs none.txt: no such file; `none` takes the encoder's own"),
        (("--glove_embs", "{place}/bad.txt"), "bad.txt:2: expected a word and 2 finite numbers"),
        (("--keep_confidence", 0.9), "--keep_confidence needs --teacher_path"),
        (("--teacher_path", "x"), "--teacher_path is used by --keep_confidence only"),
        (("--keep_confidence", 0.9, "--teacher_path", "{place}/no"), "no: no such folder"),
        (("--keep_confidence", 0.9, "--teacher_path", "x", "--task_name", "STS-B"), "STS-B has scores, not classes"),
        (("--p", 1.5), "--p 1.5: must be at most 1"),
        (("--N", 0), "--N 0: must be at least 1"),
        (("--mlm_mode", "fast"), "--mlm_mode fast: must be one of per_word, single_pass"),
        (("--pretrained_bert_model", "{place}/no"), "no: no such folder"),
        (("--task_name", "RTE"), "no such file (the train split of RTE)"),
    ],
)
def test_refused(more, message, place, masked):
    (place / "bad.txt").write_text("film 1 2\nmovie 1\n")
    more = [str(value).format(place=place) for value in more]
    assert message in refused(data_augmentation.main, [*flags(place, masked), *more], place)


def test_a_masked_lm_of_one_token_type_is_refused(place, masked):
    model = keep_one_token_type(shutil.copytree(masked, place / "model"))
    line = refused(data_augmentation.main, flags(place, model), place)
    assert line.startswith(f"{model}/config.json: type_vocab_size 1, and two texts in one input need 2 token types")


# Its reader


def test_the_lstm_recipe_reads_the_file(place, masked, teachers, tmp_path):
    taught = ("--teacher_path", teachers("SST-2"), "--cache_dir", tmp_path / "cache", "--use_aug", "--n_iter", 0)
    argv = lstm(place, tmp_path / "run", "SST-2", *taught, "--num_train_epochs", 1)
    assert "no augmented rows" in refused(bert_distill.main, argv, tmp_path / "run")
    path = augmented(place, masked, "SST-2", "--N", 2)
    run = bert_distill.main(argv)
    assert read(run / "run.json")["train_rows"] == len(path.read_text().splitlines()) - 1 > 2 * 96
    assert json.loads((run / "run.json").read_text())["finished"]


def test_the_progress_bar_counts_a_ranks_own_sentences(capsys, monkeypatch):
    """Rate and time left are in sentences, whatever the size of a block."""
    monkeypatch.setattr(work.sys.stderr, "isatty", lambda: True, raising=False)
    at_once = {"delay": 0, "mininterval": 0, "miniters": 1, "ascii": True}
    monkeypatch.setattr(work, "tqdm", lambda bar=work.tqdm, **flags: bar(**flags | at_once))
    sizes = [10, 20, 30, 40]
    for rank, own, total in ((0, [3, 2], 70), (1, [1], 20)):
        monkeypatch.setattr(work, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(work, "world_size", lambda: 2)
        monkeypatch.setattr(work, "barrier", lambda: None)
        assert list(work.share([3, 1, 2], sizes, "masked LM", "sentences")) == own
        full = [line for line in capsys.readouterr().err.split("\r") if f"{total}/{total}" in line]
        assert full and "masked LM" in full[0] and "sentences/s" in full[0] and "<00:00" in full[0]
