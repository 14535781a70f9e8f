"""Wordpiece ids against PaddleNLP's BertTokenizer, which is the specification."""

import json
import os
import random
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.data.ragged import Ragged
from distill.data.wordpiece import Encoded, WordPiece, report_cut
from distill.data.words import BasicTable
from distill.errors import UserError
from tests.tiny import save_as_transformers_5

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [
    "un",
    "aff",
    "able",
    "hello",
    "Hello",
    "wor",
    "ld",
    "caf",
    "Stra",
    "ss",
    "ing",
    "the",
    "中",
    "国",
    "龍",
    "é",
    "ё",
    "ñ",
    "中国",
]
SINGLE = list("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.,!?'-[]()@#$^`~|<>=+_/\\\"%&*:;{}€₿£°…—“”。，！？《》ßσςЖжİı")
VOCAB = list(dict.fromkeys(SPECIALS + PIECES + SINGLE + ["##" + piece for piece in PIECES + SINGLE]))

TRICKY = [
    "",
    " ",
    "\t\n\r\x0b\x0c\x1c\x85\u2028\u2029\u00a0\u3000",
    "Hello, world!",
    "unaffable UNAFFABLE",
    "café CAFÉ cafe\u0301 naïve Ångström ñandú Straße ÉCOLE",
    "ΑΣ ΑΣ. σς İstanbul ıI DŽ ﬁ Ⅷ ½ ²º µØŋƱ〇\u00ad",
    "中国龍hello中国world 《書》，。！\uf900\U0002f800\U00020000㐀",
    "ひらがなカタカナ 한국어 ㈱ ａｂｃ１２",
    "a\0b\x01c\x02d\x05e\x7ff\x80g\u200bh\u200di\ufeffj\ufffdk\u202el\ue000m\ud800n\udfffo",
    "5€ x+y≠z ₿ £5 ™©® → ∑ ☃ 😀😀 👨‍👩‍👧 $1.50 ^_^ `~|<>=",
    "don't [MASK]ing [mask] x[CLS]y [[SEP]] [PAD] [UNK] [MAS\0K] [MASK\u200b] a[MA\x01SK] 中[C\x07LS]中 [SE\0P][CLS]",
    "a" * 100 + " " + "a" * 101 + " " + "b" * 5000,
    "hello" * 20 + " " + "é" * 100 + "e\u0301" * 60,
    "x\u0345\u0308\u0300y \u1715\u302e\u16ff0 e\u0327\u0301\u034f\u0300 \U0001d160",
    "the ##ing ## # un##able",
    "ὈΔΥΣΣΕΎΣ ЁЖИК ёжик हिन्दी ไทย עִבְרִית العَرَبِيَّة",
]


def paddlenlp_tokenizer(vocab_file, folder, **options):
    """As models are opened: from a folder. (Made from the file alone, it misses special tokens that touch a word.)"""
    from paddlenlp.transformers import BertTokenizer

    shutil.copy(vocab_file, folder / "vocab.txt")
    (folder / "tokenizer_config.json").write_text(json.dumps(options), encoding="utf-8")
    return BertTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def vocab_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join(VOCAB) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=[(True, None), (False, None), (True, False), (False, True)], ids=str)
def both(request, vocab_file, tmp_path_factory):
    lowercase, strip = request.param
    theirs = paddlenlp_tokenizer(
        vocab_file, tmp_path_factory.mktemp("bert"), do_lower_case=lowercase, strip_accents=strip
    )
    return WordPiece(vocab_file, lowercase, strip), theirs


def assert_same(ours, theirs, text_a, text_b, max_length):
    encoded = ours.encode(text_a, text_b, max_length)
    assert len(encoded) == len(text_a)
    for i, a in enumerate(text_a):
        expected = theirs(
            a, text_pair=None if text_b is None else text_b[i], max_length=max_length, truncation="longest_first"
        )
        assert encoded.row(i).tolist() == expected["input_ids"], (a, text_b and text_b[i], max_length)
        assert encoded.types[encoded.offsets[i] : encoded.offsets[i + 1]].tolist() == expected["token_type_ids"]


def test_tricky_strings(both):
    assert_same(*both, TRICKY, None, 6000)
    assert_same(*both, TRICKY, None, 7)


def test_tricky_pairs_at_many_lengths(both):
    pairs = [(a, b) for a in TRICKY[::2] for b in TRICKY[1::3]]
    text_a, text_b = [a for a, _ in pairs], [b for _, b in pairs]
    for max_length in (5, 6, 17, 128):
        assert_same(*both, text_a, text_b, max_length)


ALPHABET = st.one_of(
    st.characters(),
    st.sampled_from("abc XYZ .,!' \t\0\x01\u200b中国é\u0301€[]ßİΣ"),
    st.sampled_from([*PIECES, *SPECIALS, "[MA\0SK]"]),
)
TEXT = st.lists(ALPHABET, max_size=30).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.integers(5, 40))
def test_any_strings(both, pairs, max_length):
    text_a, text_b = [a for a, _ in pairs], [b for _, b in pairs]
    assert_same(*both, text_a, None, max_length)
    assert_same(*both, text_a, text_b, max_length)


@pytest.mark.parametrize("lowercase", [True, False])
def test_every_character_of_unicode(lowercase):
    from paddlenlp.transformers import BasicTokenizer

    assigned = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    characters = assigned + ["\ud800", "\ue000", "\ufdd0", "\U000e0080", "\U0010ffff"]
    theirs, ours = BasicTokenizer(do_lower_case=lowercase), BasicTable(lowercase)
    for start in range(0, len(characters), 50):
        text = "".join(f"x{c}y{c} {c}\u0301" for c in characters[start : start + 50])
        # BertTokenizer lower-cases character by character before its BasicTokenizer does it word by word.
        given = "".join(c.lower() for c in text) if lowercase else text
        assert ours.words(text) == theirs.tokenize(given)


def test_longest_first_lengths():
    from distill.data.wordpiece import _longest_first

    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(13), np.arange(13)))
    for room in range(2, 27):
        keep_a, keep_b = _longest_first(a, b, room)
        for i in range(len(a)):
            x, y = int(a[i]), int(b[i])
            while x + y > room:
                x, y = (x - 1, y) if x > y else (x, y - 1)
            assert (keep_a[i], keep_b[i]) == (x, y)


def test_rows_do_not_depend_on_their_company(vocab_file, monkeypatch):
    wordpiece = WordPiece(vocab_file, True)
    together = wordpiece.encode(TRICKY, TRICKY[::-1], 32)
    monkeypatch.setattr("distill.data.wordpiece._CHUNK", 3)
    monkeypatch.setattr("distill.data.wordpiece._MAX_CACHED_WORDS", 8)
    chunked = WordPiece(vocab_file, True).encode(TRICKY, TRICKY[::-1], 32)
    for name in ("ids", "types", "offsets"):
        assert np.array_equal(getattr(together, name), getattr(chunked, name))
        assert getattr(together, name).dtype == getattr(chunked, name).dtype
    assert np.array_equal(together.keys(), chunked.keys())
    assert wordpiece.encode([], None, 8).lengths.tolist() == []
    assert wordpiece.encode([], [], 8).ids.dtype == np.int32


def test_pieces_and_from_pieces(vocab_file):
    wordpiece = WordPiece(vocab_file, True)
    pieces = wordpiece.pieces(TRICKY)
    assert [wordpiece.tokens[i] for i in wordpiece.pieces(["Unaffable world"])[0]] == [
        "un",
        "##aff",
        "##able",
        "wor",
        "##ld",
    ]
    direct = wordpiece.encode(TRICKY, TRICKY[::-1], 12)
    for rows in (pieces, [np.array(row, np.int64) for row in pieces]):
        built = wordpiece.from_pieces(Ragged.from_lists(rows), Ragged.from_lists(rows[::-1]), max_length=12)
        assert np.array_equal(built.ids, direct.ids) and np.array_equal(built.types, direct.types)
        assert built.ids.dtype == np.int32
    assert np.array_equal(
        wordpiece.from_pieces(Ragged.from_lists(pieces), max_length=9).ids, wordpiece.encode(TRICKY, None, 9).ids
    )


def test_rows_know_whether_they_were_cut(vocab_file, capsys):
    wordpiece = WordPiece(vocab_file, True)
    texts, others = ["hello " * n for n in (1, 3, 4, 9)], ["hello " * n for n in (1, 2, 1, 0)]
    alone, pairs = wordpiece.encode(texts, None, 5), wordpiece.encode(texts, others, 8)
    assert alone.cut.tolist() == [False, False, True, True] and pairs.cut.tolist() == [False, False, False, True]
    assert alone.take([3, 0]).cut.tolist() == [True, False]
    assert alone.concat(pairs).cut.tolist() == [*alone.cut, *pairs.cut]
    pieces = [Ragged.from_lists(wordpiece.pieces(column)) for column in (texts, others)]
    assert wordpiece.from_pieces(*pieces, max_length=8).cut.tolist() == pairs.cut.tolist()
    report_cut("rows", alone.cut, "--max_seq_length 5")
    report_cut("rows", alone.take([0, 1]).cut, "--max_seq_length 5")
    assert capsys.readouterr().out == "2 of 4 rows are longer than --max_seq_length 5 and are cut\n"


def test_max_length_too_small(vocab_file):
    wordpiece = WordPiece(vocab_file, True)
    assert wordpiece.encode(["hello hello"], None, 3).lengths.tolist() == [3]
    with pytest.raises(UserError, match="--max_seq_length 2: must be at least 3"):
        wordpiece.encode(["hello"], None, 2)
    with pytest.raises(UserError, match="--max_seq_length 4: must be at least 5"):
        wordpiece.encode(["hello"], ["hello"], 4)
    with pytest.raises(ValueError, match="1 first texts but 2 second"):
        wordpiece.encode(["hello"], ["hello", "hello"], 8)


def test_vocabulary_errors(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhello\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab\.txt: no token \[MASK\]"):
        WordPiece(path, True)
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n[UNK]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"vocab\.txt:7: token '\[UNK\]' already stands in line 2"):
        WordPiece(path, True)


def test_from_folder(tmp_path, vocab_file):
    with pytest.raises(UserError, match=r"vocab\.txt: no such file"):
        WordPiece.from_folder(tmp_path)
    content = vocab_file.read_text(encoding="utf-8")
    (tmp_path / "vocab.txt").write_text(content, encoding="utf-8")
    assert WordPiece.from_folder(tmp_path).lowercase is False  # the vocabulary has Hello and Stra
    (tmp_path / "vocab.txt").write_text(content.replace("Hello", "<S>").replace("Stra", "<T>"), encoding="utf-8")
    uncased = WordPiece.from_folder(tmp_path)
    assert uncased.lowercase is True
    special_ids = (uncased.pad_id, uncased.unk_id, uncased.cls_id, uncased.sep_id, uncased.mask_id)
    assert [uncased.tokens[i] for i in special_ids] == SPECIALS
    settings_file = tmp_path / "tokenizer_config.json"
    settings_file.write_text(json.dumps({"do_lower_case": True, "strip_accents": False}), encoding="utf-8")
    accents = WordPiece.from_folder(tmp_path)
    assert [accents.tokens[i] for i in accents.pieces(["É"])[0]] == ["é"]
    assert accents.digest() != uncased.digest() == WordPiece(tmp_path / "vocab.txt", True).digest()
    settings_file.write_text(json.dumps({"tokenize_chinese_chars": False}), encoding="utf-8")
    with pytest.raises(UserError, match="tokenize_chinese_chars and do_basic_tokenize must be true"):
        WordPiece.from_folder(tmp_path)


PLAIN = [  # where that library and PaddleNLP agree: no symbols, no newer Unicode
    "Hello, world! UNAFFABLE unaffable hello",
    "café CAFÉ cafe\u0301 naïve Ångström ñandú Straße ÉCOLE",
    "中国龍hello中国world 《书》，。！Hello 中Ä国",
    "don't [MASK]ing x[CLS]y [SEP] [mask] a\tb\nc\u00a0d \x01e",
    "a" * 101 + " Ёжик ёжик 한국어",
]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_tokenizer_json_gives_the_ids_of_its_library(lowercase, strip_accents, vocab_file, tmp_path):
    from tokenizers import Tokenizer

    shutil.copy(vocab_file, tmp_path / "vocab.txt")
    save_as_transformers_5(tmp_path, lowercase, strip_accents)
    ours, theirs = WordPiece.from_folder(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    encoded, pairs = ours.encode(PLAIN, None, 400), ours.encode(PLAIN, PLAIN[::-1], 400)
    for i, (a, b) in enumerate(zip(PLAIN, PLAIN[::-1], strict=True)):
        assert encoded.row(i).tolist() == theirs.encode(a).ids
        expected = theirs.encode(a, b)
        assert pairs.row(i).tolist() == expected.ids
        assert pairs.types[pairs.offsets[i] : pairs.offsets[i + 1]].tolist() == expected.type_ids
    assert (encoded.row(0)[1] == VOCAB.index("hello")) == lowercase
    assert ours.digest() == WordPiece(vocab_file, lowercase, strip_accents).digest()
    ours.save(tmp_path / "student")
    assert (tmp_path / "student" / "vocab.txt").read_bytes() == vocab_file.read_bytes()
    assert WordPiece.from_folder(tmp_path / "student").digest() == ours.digest()


def set_in(part, name, value):
    return lambda content: content[part].__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_in("model", "type", "BPE"), 'model.type is "BPE", not "WordPiece"'),
        (set_in("model", "unk_token", "<unk>"), 'model.unk_token is "<unk>", not "[UNK]"'),
        (set_in("model", "continuing_subword_prefix", "@@"), 'continuing_subword_prefix is "@@", not "##"'),
        (set_in("model", "max_input_chars_per_word", 50), "model.max_input_chars_per_word is 50, not 100"),
        (set_in("normalizer", "handle_chinese_chars", False), "normalizer.handle_chinese_chars is false, not true"),
        (set_in("normalizer", "type", "Lowercase"), 'normalizer.type is "Lowercase", not "BertNormalizer"'),
        (lambda content: content.update(normalizer=None), 'normalizer.type is null, not "BertNormalizer"'),
        (lambda content: content.update(pre_tokenizer={"type": "Whitespace"}), 'pre_tokenizer.type is "Whitespace"'),
        (lambda content: content.update(post_processor=None), "post_processor does not make [CLS] a [SEP] b [SEP]"),
        (lambda content: content["post_processor"]["pair"].pop(), "post_processor does not make"),
        (lambda content: content["model"]["vocab"].pop("hello"), "ids of model.vocab are not 0, 1, ..."),
        (lambda content: content["model"]["vocab"].update({"\n": len(VOCAB)}), "is empty or has a line end in it"),
        (lambda content: content["added_tokens"].append({"id": 5, "content": "un"}), 'the added token "un" is none'),
    ],
)
def test_a_tokenizer_json_of_another_kind_is_refused(change, expected, vocab_file, tmp_path):
    shutil.copy(vocab_file, tmp_path / "vocab.txt")
    path = save_as_transformers_5(tmp_path) / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError) as error:
        WordPiece.from_folder(tmp_path)
    line = str(error.value)
    assert line.startswith(f"{path}: ") and expected in line and "\n" not in line and "pass a BERT" in line


def test_a_tokenizer_json_and_its_config_must_agree(vocab_file, tmp_path):
    shutil.copy(vocab_file, tmp_path / "vocab.txt")
    config = save_as_transformers_5(tmp_path, True) / "tokenizer_config.json"
    config.write_text('{"do_lower_case": false}')
    with pytest.raises(UserError, match="do_lower_case is False, in tokenizer.json True; correct the one"):
        WordPiece.from_folder(tmp_path)
    config.unlink()
    assert WordPiece.from_folder(tmp_path).lowercase is True


def sample():
    return Encoded.from_rows([[2, 7, 3], [], [2, 7, 8, 3, 9, 3]], [[0, 0, 0], [], [0, 0, 0, 0, 1, 1]])


def test_encoded_rows():
    encoded = sample()
    assert len(encoded) == 3
    assert encoded.lengths.tolist() == [3, 0, 6] and encoded.lengths.dtype == np.int64
    assert (encoded.ids.dtype, encoded.types.dtype, encoded.offsets.dtype) == (np.int32, np.uint8, np.int64)
    taken = encoded.take([2, 0, 2])
    assert [taken.row(i).tolist() for i in range(3)] == [[2, 7, 8, 3, 9, 3], [2, 7, 3], [2, 7, 8, 3, 9, 3]]
    both = encoded.concat(taken)
    assert both.lengths.tolist() == [3, 0, 6, 6, 3, 6]
    assert both.row(4).tolist() == [2, 7, 3]
    assert both.types[both.offsets[5] :].tolist() == [0, 0, 0, 0, 1, 1]
    assert len(Encoded.joined([])) == 0
    with pytest.raises(ValueError, match="as many token types as ids"):
        Encoded.from_rows([[1, 2], [3]], [[0], [0, 0]])


def test_encoded_pad():
    batch = sample().pad([2, 0], pad_id=99)
    assert batch["input_ids"].tolist() == [[2, 7, 8, 3, 9, 3], [2, 7, 3, 99, 99, 99]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]]
    assert batch["mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert batch["lengths"].tolist() == [6, 3]
    assert [batch[k].dtype.name for k in ("input_ids", "token_type_ids", "mask", "lengths")] == [
        "int64",
        "int64",
        "float32",
        "int64",
    ]
    assert sample().pad([0], width=5)["input_ids"].tolist() == [[2, 7, 3, 0, 0]]
    with pytest.raises(ValueError, match="6 tokens, more than the width 5"):
        sample().pad([2, 0], width=5)


def test_keys_address_the_content():
    encoded = sample()
    keys = encoded.keys()
    assert keys.dtype == np.dtype("V16") and keys.shape == (3,)
    # hashlib.blake2b(bytes([2,0,0,0, 7,0,0,0, 3,0,0,0]), digest_size=16)
    assert keys[0].tobytes().hex() == "6ad878ca7035884f305d3260580cdf14"
    assert np.array_equal(encoded.take([2, 0]).keys(), keys[[2, 0]])
    other_types = Encoded.from_rows([[2, 7, 3], [], [2, 7, 8, 3, 9, 3]]).keys()
    assert other_types[0] == keys[0] and other_types[2] != keys[2]
    assert len(np.unique(Encoded.from_rows([[1, 2], [12], [1], [2, 1], [1, 2]]).keys())) == 4
    assert Encoded.from_rows([]).keys().shape == (0,)
    with pytest.raises(ValueError, match="ids must lie"):
        Encoded.from_rows([[1 << 24]]).keys()


def test_importing_is_cheap():
    import subprocess

    code = (
        "import sys, distill.data.wordpiece, distill.data.words, distill.data.vectors, distill.data.batching\n"
        "heavy = {'paddle', 'paddlenlp', 'jieba', 'gensim', 'tokenizers', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


DATA = os.environ.get("DISTILL_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DISTILL_DATA is not set: no real rows")


def real_columns(name, *columns):
    lines = (Path(DATA) / name).read_text(encoding="utf-8").split("\n")[1:]
    fields = [line.split("\t") for line in random.Random(0).sample([line for line in lines if line], 300)]
    return [[row[column] for row in fields] for column in columns]


@needs_data
@pytest.mark.parametrize(
    ("name", "columns", "vocabulary", "max_length"),
    [
        ("glue_data/SST-2/train.tsv", [0], "bert-base-uncased", 128),
        ("glue_data/MRPC/train.tsv", [3, 4], "bert-base-uncased", 50),
        ("glue_data/RTE/train.tsv", [1, 2], "bert-base-uncased", 64),
        ("chnsenticorp/train.tsv", [1], "bert-base-chinese", 128),
        ("chnsenticorp/train.tsv", [1], "bert-base-uncased", 129),
    ],
)
@pytest.mark.parametrize("lowercase", [True, False])
def test_real_rows(name, columns, vocabulary, max_length, lowercase, tmp_path):
    vocab = Path(DATA) / "vocab" / f"{vocabulary}-vocab.txt"
    text_a, *rest = real_columns(name, *columns)
    theirs = paddlenlp_tokenizer(vocab, tmp_path, do_lower_case=lowercase)
    assert_same(WordPiece(vocab, lowercase), theirs, text_a, rest[0] if rest else None, max_length)
