"""A multilingual vocabulary: the same for the same text, kept tokens first, every frequent character in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill.data.wordpiece import WordPiece
from distill.errors import UserError
from multistage.build_vocab import SPECIAL, coverage, main, trained_tokens
from tests.recipes.runs import read, refused, tree
from tests.tiny import VOCAB

ROOT = Path(__file__).resolve().parents[2]
GERMAN = "Der Film ist schön . | Der Hund schläft . | Ein schöner Film , ein schöner Hund . | Die Hunde sind müde ."
CHINESE = "这部电影很好。 | 电影好看。 | 狗很好。 | 好狗。"


@pytest.fixture
def files(tmp_path):
    """Two languages, 5 sentences each."""
    english = ["the film", "the dog", "a film and a dog", "dogs", "good dogs"]
    texts = {"de": [*GERMAN.split("|"), "Ein großer Film ."], "zh": [*CHINESE.split("|"), "狼很好。"]}
    paths = []
    for language, targets in texts.items():
        path = tmp_path / f"train.en-{language}.tsv"
        rows = [f"{a}\t{b.strip()}" for a, b in zip(english, targets, strict=True)]
        path.write_text("\n".join(rows), encoding="utf-8")
        paths.append(str(path))
    return paths


@pytest.fixture
def flags(files, tmp_path):
    def made(*more, folder="vocab"):
        return [*files, "--output_dir", str(tmp_path / folder), "--min_frequency", "1", *map(str, more)]

    return made


@pytest.fixture
def english(tmp_path):
    path = tmp_path / "english.txt"
    path.write_text("\n".join(VOCAB) + "\n")
    return path


def test_a_vocabulary_of_its_own(flags, capsys):
    folder = main(flags("--vocab_size", 80))
    wordpiece = WordPiece.from_folder(folder)
    assert wordpiece.lowercase and wordpiece.size == 80 and wordpiece.tokens[:5] == list(SPECIAL)
    assert len(set(wordpiece.tokens)) == 80
    # As uncased BERT: lower case, no accents, each Chinese character alone.
    assert not any(c.isupper() or c in "öäü" for token in wordpiece.tokens[5:] for c in token)
    assert {"电", "影", "好", "。"} <= set(wordpiece.tokens) and "##影" not in wordpiece.tokens
    assert {"film", "schon", "dog"} <= set(wordpiece.tokens)
    assert wordpiece.pieces(["Schön"]) == wordpiece.pieces(["schon"]) == [[wordpiece.tokens.index("schon")]]
    facts = read(folder / "run.json")
    assert facts["finished"] and (facts["tokens"], facts["kept"]) == (80, 0)
    assert sorted(facts["languages"]) == ["de", "en", "zh"]
    assert facts["languages"]["zh"]["pieces_per_word"] == 1.0
    said = capsys.readouterr().out
    assert f"written: {folder / 'vocab.txt'}: 80 tokens, 0 kept" in said and "zh: 1.00 pieces a word" in said


def test_kept_tokens_come_first_under_their_numbers(flags, english):
    folder = main(flags("--vocab_size", 160, "--keep_vocab", english))
    tokens = WordPiece.from_folder(folder).tokens
    assert tokens[: len(VOCAB)] == list(VOCAB) and len(set(tokens)) == len(tokens) <= 160
    new = tokens[len(VOCAB) :]
    assert "好" in new and "dogs" not in new and "dog" not in new  # from the translations alone
    # Read by both, English text has the same ids.
    texts = ["The wonderful film, a charming story.", "people never play"]
    assert WordPiece(folder / "vocab.txt", True).pieces(texts) == WordPiece(english, True).pieces(texts)


def test_a_models_folder_is_kept_too(flags, english, tmp_path):
    WordPiece(english, lowercase=True).save(tmp_path / "model")
    found = main(flags("--vocab_size", 160, "--keep_vocab", tmp_path / "model"))
    assert (found / "vocab.txt").read_text().startswith((tmp_path / "model" / "vocab.txt").read_text())
    line = refused(main, flags("--keep_vocab", tmp_path / "model", "--lowercase", "False", folder="other"), tmp_path)
    assert line.endswith("its model has lowercase True; pass --lowercase so too")


def test_with_case_and_accents(flags):
    tokens = WordPiece.from_folder(main(flags("--vocab_size", 100, "--lowercase", "False"))).tokens
    assert "Film" in tokens and "##ö" in tokens
    folder = main(flags("--vocab_size", 100, "--strip_accents", "no", folder="accents"))
    wordpiece = WordPiece.from_folder(folder)
    assert wordpiece.lowercase and "schön" in wordpiece.tokens and "schon" not in wordpiece.tokens


def test_rare_characters_are_left_out_and_teach_nothing():
    rows = [["ab", "ab", "abz"], ["ab", "cb"], ["cb", "zq"]]
    tokens = trained_tokens(rows, SPECIAL, 50, 2)
    assert tokens == [*SPECIAL, "##b", "a", "c", "ab", "cb"]  # 6, 4 and 2 times; then pairs; z and q once each
    everything = trained_tokens(rows, SPECIAL, 50, 1)
    assert set(tokens) < set(everything) and {"z", "##z", "##q", "zq", "abz"} <= set(everything)
    assert trained_tokens(rows, SPECIAL, 9, 2) == tokens[:9]


def test_every_row_can_be_read_back(flags, files):
    folder = main(flags("--vocab_size", 70))
    wordpiece = WordPiece.from_folder(folder)
    targets = [line.split("\t")[1] for file in files for line in Path(file).read_text().splitlines()]
    for words, pieces in zip(wordpiece.words(targets), wordpiece.pieces(targets), strict=True):
        joined = "".join(wordpiece.tokens[piece].removeprefix("##") for piece in pieces)
        assert joined == "".join(words)
    assert coverage(wordpiece, targets)["unknown_share"] == 0.0


def test_coverage_by_hand(english):
    wordpiece = WordPiece(english, True)
    # wonder ##ful, film, [UNK]
    assert coverage(wordpiece, ["wonderful film", "猫"]) == {"pieces_per_word": 4 / 3, "unknown_share": 1 / 3}


def test_the_same_in_every_process(flags, tmp_path):
    """Where the trainer's hash tables lie differs from process to process."""
    code = """
import hashlib, random
from multistage.build_vocab import SPECIAL, trained_tokens
rng = random.Random(0)  # words with many pairs that are equally frequent
rows = [["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(6)] for _ in range(400)]
print(hashlib.sha256("\\n".join(trained_tokens(rows, SPECIAL, 900, 1)).encode()).hexdigest())
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    said = {
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True).stdout
        for _ in range(4)
    }
    assert len(said) == 1 and len(said.pop()) == 65


def test_a_finished_vocabulary_stays_and_another_is_refused(flags, tmp_path, capsys):
    folder = main(flags("--vocab_size", 80))
    before = tree(folder)
    assert main(flags("--vocab_size", 80)) == folder and tree(folder) == before
    assert "holds this vocabulary already; --overwrite makes it again" in capsys.readouterr().out
    line = refused(main, flags("--vocab_size", 70), tmp_path)
    assert "holds a run with other settings (vocab_size 80 there, 70 now)" in line
    main(flags("--vocab_size", 70, "--overwrite"))
    assert WordPiece.from_folder(folder).size == 70
    main(flags("--vocab_size", 80, folder="again"))
    assert (folder.parent / "again" / "vocab.txt").read_bytes() == before[folder / "vocab.txt"]


def test_killed_in_the_midst_it_is_made_by_the_same_command(flags, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(WordPiece, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            main(flags("--vocab_size", 80))
    folder = main(flags("--vocab_size", 80))
    assert WordPiece.from_folder(folder).size == 80 and not (folder / "best").exists()


def test_a_text_that_gives_fewer_tokens(flags, capsys):
    folder = main(flags("--vocab_size", 5000))
    size = WordPiece.from_folder(folder).size
    assert 80 < size < 100 and f"the text gives {size} tokens in place of 5,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ("--vocab_size", 20),
            r"--vocab_size 20: 5 tokens are kept and the text has \d+ other characters; take at least",
        ),
        (("--vocab_size", 5), "--vocab_size 5: must be at least 6"),
        (("--keep_vocab", "nowhere"), "nowhere: no such vocabulary file"),
        (("--strip_accents", "maybe"), "--strip_accents maybe: must be one of auto, yes, no"),
        (("--min_frequency", 0), "--min_frequency 0: must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused(flags, tmp_path, more, message):
    with pytest.raises(UserError, match=message) as error:
        main(flags(*more))
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "vocab").glob("vocab.txt"))


def test_files_and_a_folder_are_needed(files, tmp_path):
    with pytest.raises(UserError, match="give the files of parallel sentences"):
        main(["--output_dir", str(tmp_path / "vocab")])
    with pytest.raises(UserError, match="--output_dir is needed"):
        main(files)
    with pytest.raises(UserError, match="none.en-de.tsv: no such file"):
        main([str(tmp_path / "none.en-de.tsv"), "--output_dir", str(tmp_path / "vocab")])
    assert not (tmp_path / "vocab").exists()
