"""From rows to what the BiLSTM reads, beside what the teacher reads of the same rows and of their augmented copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from distill.data.augment import Augmentation, Classes, UnitTable, augment, expand
from distill.data.ragged import Ragged
from distill.data.readers import Rows
from distill.data.tasks import Task
from distill.data.vectors import compose_words, embedding_matrix, load_vectors, reduce_table
from distill.data.wordpiece import Encoded, WordPiece, report_cut
from distill.data.words import WordVocab, parts_of_speech, segment
from distill.encoders.folder import word_embeddings
from distill.errors import UserError
from distill.runtime import log
from distill_lstm.args import DistillArgs, StudentArgs
from models.bilstm import BiLSTM, BiLSTMConfig, Reader, Texts, predict


@dataclass
class Features:
    """Rows and their copies as both models read them. labels: [n], -1 or nan where a row has none."""

    student: Texts
    teacher: Encoded | None
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.student)

    @cached_property
    def labelled(self) -> np.ndarray:
        """1 where a row has a label, else 0: float32 [n]."""
        has = ~np.isnan(self.labels) if self.labels.dtype.kind == "f" else self.labels >= 0
        return has.astype(np.float32)


def reads_words(args: StudentArgs, task: Task) -> bool:
    """Whether the student reads words: as --tokens says, by default in Chinese only. Refuses flags that do not go
    with it."""
    words = args.tokens == "words" or (args.tokens == "auto" and task.language == "zh")
    if words and args.whole_word_mask:
        raise UserError("--whole_word_mask: the student reads whole words already; leave the flag out")
    if args.p_pos and not (words or args.whole_word_mask):
        raise UserError("--p_pos replaces whole words; add --whole_word_mask true")
    if args.vocab_path and not words:
        raise UserError("--vocab_path is the list of a student's words; add --tokens words")
    return words


def check_model_name(args: DistillArgs, teacher: WordPiece) -> None:
    """Refuse a --model_name that is a folder with other wordpieces than the teacher's, which are what the student
    reads."""
    if (
        args.model_name
        and Path(args.model_name).is_dir()
        and WordPiece.from_folder(args.model_name).digest() != teacher.digest()
    ):
        what = f"its wordpieces are not those of the teacher, {teacher.vocab_file}"
        raise UserError(f"--model_name {args.model_name}: {what}; leave the flag out")


def make_reader(args: StudentArgs, task: Task, train: Rows, wordpiece: WordPiece | None) -> Reader:
    """The student's reader: the wordpieces of `wordpiece`, or words from --vocab_path or, without it, of the training
    rows."""
    if wordpiece is not None:
        vocabulary: WordPiece | WordVocab = wordpiece
        if args.vocab_size not in (None, wordpiece.size):
            has = f"{wordpiece.vocab_file} has {wordpiece.size} tokens"
            raise UserError(f"--vocab_size {args.vocab_size}: {has}; correct the flag or leave it out")
    elif args.vocab_path:
        vocabulary = WordVocab.from_file(args.vocab_path, args.vocab_size)
    else:
        vocabulary = WordVocab.build(segment([*train.text_a, *(train.text_b or ())], task.language), args.vocab_size)
    return Reader(vocabulary, task.language, args.max_seq_length)


def features(rows: Rows, reader: Reader, teacher: WordPiece | None, args: StudentArgs) -> Features:
    """The rows, then --n_iter augmented copies of each. `teacher` is its wordpieces, None where there is no teacher.

    Both texts of a pair are masked independently and kept whole: an n-gram would no longer be the same question.
    """
    whole = [reader.whole(texts) for texts in (rows.text_a, rows.text_b) if texts is not None]
    cut = np.any([texts.lengths > reader.max_length for texts in whole], axis=0)
    report_cut("training rows", cut, f"--max_seq_length {reader.max_length}")
    student = [reader.fit(texts) for texts in whole]
    encoded = teacher.encode(rows.text_a, rows.text_b, args.max_seq_length) if teacher else None
    labels = rows.labels if rows.labels is not None else np.full(len(rows), -1)
    if not args.n_iter:
        return Features(Texts(*student, pad_id=reader.vocabulary.pad_id), encoded, labels)
    p_ngram, ngram = (args.p_ng if rows.text_b is None else 0.0), ((2, 10) if reader.language == "zh" else (2, 6))
    how = Augmentation(args.n_iter, args.p_mask, args.p_pos, p_ngram, ngram, args.seed)
    made = [
        _copies(texts, reader, teacher, how, i, args)
        for i, texts in enumerate((rows.text_a, rows.text_b))
        if texts is not None
    ]
    student = [Ragged.concat([plain, reader.fit(copies)]) for plain, (copies, _) in zip(student, made, strict=True)]
    if teacher is not None and encoded is not None:
        encoded = encoded.concat(teacher.from_pieces(*[pieces for _, pieces in made], max_length=args.max_seq_length))
    return Features(
        Texts(*student, pad_id=reader.vocabulary.pad_id), encoded, np.append(labels, np.repeat(labels, args.n_iter))
    )


def _copies(
    texts: Sequence[str], reader: Reader, teacher: WordPiece | None, how: Augmentation, stream: int, args: StudentArgs
) -> tuple[Ragged, Ragged]:
    """Copies of each text as the student's ids and as the teacher's pieces."""
    vocabulary = reader.vocabulary
    if isinstance(vocabulary, WordPiece) and not args.whole_word_mask:
        copies = augment(Ragged.from_lists(vocabulary.pieces(texts)), how, vocabulary.mask_id, stream)
        return copies, copies
    table = UnitTable()
    if isinstance(vocabulary, WordPiece):
        rows = table.index(vocabulary.words(texts))
        as_read = table.units
    else:  # cut as the teacher reads them, lower-cased for the student
        rows = table.index(segment(texts, reader.language, teacher is None or teacher.lowercase))
        as_read = ["".join(parts) for parts in segment(table.units, "en")] if reader.language == "en" else table.units
    classes = None
    if how.p_replace:
        tags = parts_of_speech(as_read, reader.language, args.pos_file)
        classes = Classes(np.unique(tags, return_inverse=True)[1] - 1, np.bincount(rows.values, minlength=len(tags)))
    copies = augment(rows, how, 0, stream, classes)

    def ids(pieces: list[list[int]], masked: int) -> Ragged:
        return expand(copies, Ragged.from_lists([[masked], *pieces[1:]]))

    # A masked word is [MASK] where the student reads BERT's wordpieces; a word vocabulary has no such token, and
    # [UNK] serves both.
    if isinstance(vocabulary, WordPiece):
        same = ids(vocabulary.pieces(table.units), vocabulary.mask_id)
        return same, same
    for_student = ids([[i] for i in vocabulary.lookup([as_read])[0]], vocabulary.unk_id)
    return for_student, ids(teacher.pieces(table.units), teacher.unk_id) if teacher else for_student


def dev_texts(rows: dict[str, Rows], reader: Reader, task: Task) -> dict[str, tuple[Texts, np.ndarray]]:
    """Each dev split as the student reads it, with its labels."""
    return {
        split: (reader.texts(rows[split].text_a, rows[split].text_b), np.asarray(rows[split].labels))
        for split in task.dev_splits
    }


def initial_embeddings(
    args: StudentArgs, reader: Reader, wordpiece: WordPiece | None, model: str | Path
) -> np.ndarray | None:
    """[V, emb_dim] to start from, or None for random ones: word vectors of a file, or the wordpiece table of the BERT
    at `model` (see `find_model`), reduced by PCA (a word is the mean of its pieces)."""
    if not args.use_pretrained_emb:
        return None
    tokens = reader.vocabulary.tokens
    if args.embedding_name:
        vectors = load_vectors(args.embedding_name)
        size = vectors.vector_size
        if size != args.emb_dim:
            what = f"the vectors in {args.embedding_name} have {size} numbers"
            raise UserError(f"--emb_dim {args.emb_dim}: {what}; pass --emb_dim {size}")
        matrix, coverage = embedding_matrix(tokens, vectors, args.seed)
        log(f"{args.embedding_name}: vectors for {100 * coverage:.1f} % of {len(tokens):,} tokens")
        return matrix
    table = word_embeddings(model)
    width = table.shape[1]
    fitted = "reduced to {} by PCA" if args.emb_dim <= width else "the other columns of {} start at zero"
    log(f"embeddings: BERT's wordpiece table, {width} wide, {fitted.format(args.emb_dim)}")
    if reader.reads == "words":
        assert wordpiece is not None
        table = compose_words(tokens, wordpiece, table)
    return reduce_table(table, args.emb_dim, pad_id=reader.vocabulary.pad_id)


def student_config(args: StudentArgs, task: Task, reader: Reader) -> BiLSTMConfig:
    """The sizes of the student, by the flags."""
    return BiLSTMConfig(
        vocab_size=len(reader.vocabulary.tokens),
        pad_id=reader.vocabulary.pad_id,
        labels=task.labels,
        pair=task.pair,
        embedding_size=args.emb_dim,
        hidden_size=args.hidden_size,
        num_layers=args.num_layers,
        dropout=args.dropout_prob,
        init_scale=args.init_scale,
        max_length=args.max_seq_length,
        reads=reader.reads,
        language=task.language,
    )


def answer(student: BiLSTM, reader: Reader, rows: Rows, batch_size: int) -> Callable[[Sequence[int]], np.ndarray]:
    """The call that is timed: from the texts of the chosen rows to their logits."""

    def logits(chosen: Sequence[int]) -> np.ndarray:
        texts = rows.take(chosen)
        return predict(student, reader.texts(texts.text_a, texts.text_b), batch_size)

    return logits
