"""The texts that a config names, and the report on them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from distill.data.parallel import Parallel, check_apart, load_parallel, load_sts
from distill.evaluation.sentences import Encode, report
from distill.training.collapse import teacher_scale
from models.sentence_encoder import SentenceEncoder, load_sentence_encoder
from multistage.config import Config

TEST_FOLDER = "test"  # in a run's folder


def load_teacher(config: Config, run: Path) -> SentenceEncoder:
    """The config's teacher. Its vectors are as they were pooled: scaled to length 1 they would leave next to no error
    to learn from."""
    place, longest = config.place("data", "teacher_path", run), config["data", "max_seq_length"]
    return load_sentence_encoder(place, longest, normalize=False)


def taught_by(teacher: SentenceEncoder, sample: Sequence[str]) -> Encode:
    """What a student of this teacher is to match, from texts to vectors; `sample`: some of its texts."""
    scale = teacher_scale(teacher.encode(list(sample[:256])))
    return lambda texts: scale * teacher.encode(texts)


class Texts:
    """parallel: sentences and translations by split: `train`, and where the config names them `dev` and `test`.
    sts: scored pairs of every two languages by split: `dev`, `test`.

    testing: the test splits too; training: all but them too. Raises UserError for a missing or unsound file, and for
    one that stands in two splits.
    """

    def __init__(self, config: Config, data_dir: str | None, testing: bool, training: bool = True) -> None:
        splits = (["dev"] if training else []) + (["test"] if testing else [])
        limits = (config["data", "max_sentences"], config["data", "max_characters"])
        self.config, self.parallel = config, dict[str, Parallel]()
        if training:
            self.parallel["train"] = load_parallel(config.files("train_files", data_dir), *limits)
        for split in splits:
            if files := config.files(f"{split}_files", data_dir):
                self.parallel[split] = load_parallel(files)
        check_apart(self.parallel)
        scored = config.data_dir(data_dir) / config["data", "sts_dir"]
        self.sts = {split: load_sts(scored, split, config["data", "sts_languages"]) for split in splits}

    def digest(self) -> str:
        """SHA-256 of all that a run learns from or is chosen by, but the teacher."""
        content = [self.parallel["train"].digest(), *(rows.digest() for rows in self.sts["dev"].values())]
        return hashlib.sha256(" ".join(content).encode()).hexdigest()

    def report(
        self,
        folder: Path,
        split: str,
        student: SentenceEncoder,
        weights: Path,
        taught: Encode | None,
        seed: int | None,
    ) -> None:
        """Score a finished student on a split; `distill.evaluation.sentences.report` writes into `folder`.

        taught: what the student was to match for English sentences and their translations alike, if there is such.
        """
        rows, size = self.parallel.get(split), self.config["eval" if split == "dev" else "test", "batch_size"]
        theirs = None
        if rows is not None and taught is not None:
            numbers = {source: number for number, source in enumerate(dict.fromkeys(rows.sources))}
            theirs = taught(list(numbers))[[numbers[source] for source in rows.sources]]
        student.fix()
        encode = lambda texts: student.encode(texts, size)  # noqa: E731
        report(folder, split, encode, self.sts[split], rows, theirs, student, weights, size, seed)
