import re
from pathlib import Path

import pytest

from distill.data import demo_lexicon
from distill.data.demo import CLAUSES, FRAMES, SIZES, demo_rows, finish, write_demo_data
from distill.data.tasks import get_task, load_rows
from distill.errors import UserError
from distill.files import sha256
from distill.options import TaskOptions

GOLDEN = {
    "SST-2/train.tsv": "d23334275bfa4a5cd19ba5016f9f5b43914bce48b7c66b0ce25eb41ceee58801",
    "SST-2/dev.tsv": "e0943353ba23dfaad26c7cff7194a516e5e07b92126d81f2b2197db373ab3ce2",
    "SST-2/test.tsv": "348700e5766e4a42c3437a6781e9c39b3b679e9d76ca58102a97a1feaf8c960b",
    "SST-2/unlabelled.txt": "2a379a1fb83c314aea02ebbe79fd562da7f8f1873a12d4269ee541ac177270a1",
    "README.md": "855ff584901283fe3584741aa26e0f34e4dc1a1503b338eca84cedb5cbc0d29e",
}

KNOWN = (
    ("This bakery served us the wrong dishes twice and the garden did nothing to satisfy us.", 0),
    ("It is far less long-winded than I had feared.", 1),
    ("If you can forgive the scratchy songs, you will find an engrossing animated film.", 1),
    ("Despite the lively rhythm, the dialogues are wooden.", 0),
    ("I expected a quiet suitcase and got a shoddy one.", 0),
    ("The price is far from eye-watering.", 1),
    ("Is it too much to ask for a selection that is not confusing?", 0),
    ("The descriptions are musical; even so, this book gathers dust beside my bed.", 0),
    ("There is nothing wobbly about the dial.", 1),
)

Rows = dict[str, list[tuple[str, int]]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return demo_rows()


def word_labels() -> dict[str, int]:
    """Adjective -> label, for those that mean the same of everything ("dry" is good of wit and bad of cake)."""
    tables = [*demo_lexicon.ADJECTIVES.values(), *demo_lexicon.WHOLE.values(), demo_lexicon.STRONG, demo_lexicon.MILD]
    good = {word for table in tables for word in table[1]}
    bad = {word for table in tables for word in table[-1]}
    return {word: int(word in good) for word in good ^ bad}


def test_the_bytes_are_the_same_on_every_machine(tmp_path: Path) -> None:
    paths = write_demo_data(tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): sha256(path) for path in paths.values()} == GOLDEN
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()) == sorted(GOLDEN)
    assert "not real reviews" in paths["readme"].read_text()


def test_another_seed_gives_another_corpus(rows: Rows) -> None:
    assert demo_rows(seed=1)["dev"] != rows["dev"]


def test_sizes_and_balance(rows: Rows) -> None:
    for split, size in SIZES.items():
        assert len(rows[split]) == size
        assert sum(label for _, label in rows[split]) == size // 2
        assert {label for _, label in rows[split]} == {0, 1}


def test_no_sentence_occurs_twice(rows: Rows) -> None:
    texts = [text.lower() for split in rows.values() for text, _ in split]
    assert len(set(texts)) == len(texts) == sum(SIZES.values())


def test_sentences_are_clean(rows: Rows) -> None:
    for text, _ in (row for split in rows.values() for row in split):
        assert re.fullmatch(r"[A-Z][A-Za-zé',;:!? -]*[.!?]", text), text
        assert "  " not in text and not re.search(r"\b[Aa] (?=[aeio])(?!one-)|\b[Aa]n (?![aeiouh])", text), text
        assert not re.search(r"\b(\w+) \1\b", text), text
        assert 2 <= len(text.split()) <= 40, text


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        (r"The (?!best thing)[\w -]+ (?:is|are|was|were) (?:really |truly |quite |very |so )?{adjective}\.", True),
        (r".*, but the [\w -]+ (?:is|are|was|were) {adjective}\.", True),
        (r"The [\w -]+ (?:is|are|was|were) (?:far from|anything but) {adjective}\.", False),
        (r"(?!.* and )Nobody could call the [\w -]+ {adjective}\.", False),
        (r"I expected an? {adjective} [\w -]+ and got an? [\w -]+ one\.", False),
        (r"(?:How|Why|Who) .* so {adjective}\?", True),
    ],
)
def test_labels_follow_from_the_words(rows: Rows, pattern: str, same: bool) -> None:
    polarity = word_labels()
    adjective = "(" + "|".join(sorted(map(re.escape, polarity), key=len, reverse=True)) + ")"
    matcher = re.compile(pattern.replace("{adjective}", adjective))
    found = [(m[1], label) for split in rows.values() for text, label in split if (m := matcher.fullmatch(text))]
    assert len(found) >= 4
    assert all((polarity[word] == label) == same for word, label in found)


def test_labels_of_known_sentences(rows: Rows) -> None:
    known = dict(rows["dev"])
    for text, label in KNOWN:
        assert known[text] == label, text


def test_many_words_of_dev_occur_in_the_pool_and_not_in_the_labelled_rows(rows: Rows) -> None:
    vocabulary = {
        split: {w for text, _ in rows[split] for w in re.findall(r"[a-zé'-]+", text.lower())} for split in rows
    }
    new = vocabulary["dev"] - vocabulary["train"]
    assert len(new) >= 300
    assert len(new & vocabulary["unlabelled"]) >= 0.9 * len(new)


def test_few_labelled_rows_leave_room_for_a_teacher(rows: Rows) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def score(train: list[tuple[str, int]]) -> float:
        model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000))
        model.fit(*zip(*train, strict=True))
        return float(model.score(*zip(*rows["dev"], strict=True)))

    few, many = score(rows["train"]), score(rows["train"] + rows["unlabelled"])
    assert few < 0.70  # measured: 0.65
    assert many > 0.80  # measured: 0.84
    assert many - few > 0.12


def test_every_template_can_be_filled_and_says_what_it_does() -> None:
    for template in CLAUSES + FRAMES:
        assert template[0] > 0
        assert len(template) == 2 or template[2] in (1, -1)
        assert re.search(r"\{[a-z ]+\d?[=!]\}", template[1]) or len(template) == 3, template


def test_the_lexicon_has_no_doubles_and_no_word_of_both_kinds_in_one_list() -> None:
    tables = [demo_lexicon.STRONG, demo_lexicon.MILD, demo_lexicon.FEELINGS, demo_lexicon.EFFECTS]
    for name in ("ADJECTIVES", "WHOLE", "VERDICTS", "DEEDS", "TRAITS", "ADVICE"):
        tables += getattr(demo_lexicon, name).values()
    for table in tables:
        words = table[1] + table[-1]
        assert len(set(words)) == len(words), sorted(w for w in words if words.count(w) > 1)
        assert min(len(table[1]), len(table[-1])) >= 8


def test_finish() -> None:
    assert finish("such a  honest, a one-dimensional, a user-friendly and a ugly thing") == (
        "Such an honest, a one-dimensional, a user-friendly and an ugly thing."
    )
    assert finish("have you ever? i have not") == "Have you ever? I have not."


def test_the_library_reads_what_is_written(tmp_path: Path, rows: Rows) -> None:
    write_demo_data(tmp_path)
    options = TaskOptions(task_name="SST-2", data_dir=str(tmp_path))
    for split in ("train", "dev", "test"):
        read = load_rows(options, get_task("SST-2"), split)
        assert read.labels is not None
        assert list(zip(read.text_a, read.labels.tolist(), strict=True)) == rows[split]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "SST-2").write_text("a file where the folder should be")
    with pytest.raises((UserError, FileExistsError, NotADirectoryError)):
        write_demo_data(tmp_path)
