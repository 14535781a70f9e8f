import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.data.words import WordVocab, read_vocabulary, segment
from distill.errors import UserError


def test_segment_english():
    texts = ["Don't STOP, it's a Café—very good!", "", "  two\twords\n"]
    assert segment(texts, "en") == [
        ["don", "'", "t", "stop", ",", "it", "'", "s", "a", "cafe", "—", "very", "good", "!"],
        [],
        ["two", "words"],
    ]


def test_segment_chinese_is_jieba_without_white_space():
    import jieba

    texts = ["选择珠江花园的原因就是方便，有电动扶梯直接到达海边。 CPU很快 3.5元", "", "今天天气\n真好"]
    words = segment(texts, "zh")
    assert words == [[w for w in jieba.lcut(text) if w.strip()] for text in texts]
    assert words[2] == ["今天天气", "真", "好"] or "".join(words[2]) == "今天天气真好"
    assert "珠江" in "".join(words[0]) and " " not in words[0]


@pytest.mark.parametrize(
    "call", ["segment(['今天天气真好'], 'zh')", "load_jieba()", "parts_of_speech(['好'], 'zh', None)"]
)
def test_chinese_words_are_loaded_quietly(call):
    code = f"from distill.data.words import load_jieba, parts_of_speech, segment; {call}"
    run = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert "jieba" not in run.stderr.lower() and "prefix dict" not in run.stderr and run.stdout == ""


def test_segment_unknown_language():
    with pytest.raises(ValueError, match="'fr'"):
        segment(["bonjour"], "fr")


def test_build_orders_by_frequency_then_word():
    vocab = WordVocab.build([["b", "a", "c"], ["c", "d"], ["c", "b", "a"]])
    assert vocab.tokens == ["[PAD]", "[UNK]", "c", "a", "b", "d"]
    assert WordVocab.build([["d", "c"], ["b", "a", "c"], ["c", "b", "a"]]).tokens == vocab.tokens
    assert WordVocab.build([["b", "a", "c"], ["c", "[UNK]", "[UNK]"]], size=4).tokens == ["[PAD]", "[UNK]", "c", "a"]
    with pytest.raises(UserError, match="--vocab_size 2: must be at least 3"):
        WordVocab.build([["a"]], size=2)


def test_lookup():
    vocab = WordVocab(["good", "bad"])
    assert (vocab.pad_id, vocab.unk_id, len(vocab)) == (0, 1, 4)
    assert vocab.lookup([["bad", "ugly", "good"], [], ["[PAD]"]]) == [[3, 1, 2], [], [0]]


def test_save_and_from_file(tmp_path):
    path = tmp_path / "words.txt"
    vocab = WordVocab(["好", "a\u2028b", "bad"])
    vocab.save(path)
    assert path.read_text(encoding="utf-8") == "[PAD]\n[UNK]\n好\na\u2028b\nbad\n"
    assert WordVocab.from_file(path).tokens == vocab.tokens
    assert WordVocab.from_file(path, size=3).tokens == ["[PAD]", "[UNK]", "好"]
    assert [p.name for p in tmp_path.iterdir()] == ["words.txt"]


def test_special_tokens_come_first_wherever_the_file_has_them(tmp_path):
    path = tmp_path / "words.txt"
    path.write_bytes(b"\xef\xbb\xbfgood\r\n[UNK]\r\nbad")
    assert WordVocab.from_file(path).tokens == ["[PAD]", "[UNK]", "good", "bad"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "words.txt:1: the vocabulary is empty"),
        (b"\n", "words.txt:1: the vocabulary is empty"),
        (b"a\nb\n\nc\n", "words.txt:3: empty line"),
        (b"a\nb\nc\nb\n", "words.txt:4: token 'b' already stands in line 2"),
        (b"a\nb\nc\xff\n", "words.txt:3: not UTF-8"),
    ],
)
def test_bad_vocabulary_files(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_vocabulary(path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_missing_vocabulary_file(tmp_path):
    with pytest.raises(UserError, match="none.txt: no such vocabulary file"):
        WordVocab.from_file(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot be read"):
        WordVocab.from_file(tmp_path)


@pytest.mark.skipif("DISTILL_DATA" not in os.environ, reason="DISTILL_DATA is not set: no real rows")
def test_chinese_vocabulary_of_real_rows_covers_them():
    lines = (Path(os.environ["DISTILL_DATA"]) / "chnsenticorp/dev.tsv").read_text(encoding="utf-8").split("\n")[1:200]
    words = segment([line.split("\t")[1] for line in lines], "zh")
    vocab = WordVocab.build(words)
    assert vocab.tokens[2:4] == ["，", "的"]
    assert not any(vocab.unk_id in ids for ids in vocab.lookup(words))
