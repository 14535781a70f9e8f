"""Train a wordpiece vocabulary on parallel sentences, for a student without a multilingual checkpoint to start from.

    python build_vocab.py ../data/multilingual/parallel/stsb_train.en-de.tsv \
        ../data/multilingual/parallel/stsb_train.en-fr.tsv --keep_vocab ../data/vocab/bert-base-uncased-vocab.txt \
        --vocab_size 38000 --output_dir ../models/vocabulary/en_de_fr

Words are those of BERT's own tokenizer: lower-cased, without accents, each Chinese character alone. Kept tokens have
the numbers they had, so the student's embeddings of them can start as the teacher's. The same text gives the same
vocabulary.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill import runtime
from distill.cli import cosmetic, parse, run, settings
from distill.errors import UserError
from multistage.build_vocab_args import BuildVocabArgs

if TYPE_CHECKING:
    from distill.data.wordpiece import WordPiece

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the folder of the vocabulary."""
    # 1. Flags, before anything heavy is imported.
    args = parse(BuildVocabArgs, argv, __doc__)
    args.require_files()
    strip_accents = {"auto": None, "yes": True, "no": False}[args.strip_accents]
    runtime.require_one_process()
    runtime.start("cpu")
    from distill.data.parallel import load_parallel
    from distill.data.wordpiece import WordPiece
    from distill.data.words import BasicTable
    from distill.files import write_atomic
    from distill.training.monitor import Run

    # 2. The text, and the tokens that are kept.
    parallel = load_parallel(args.files, args.max_sentences)
    kept = kept_tokens(args.keep_vocab, args.lowercase, strip_accents) if args.keep_vocab else None
    texts = list(dict.fromkeys(parallel.targets if kept else parallel.sources + parallel.targets))

    # 3. The run, or what it has made before.
    content = {"files": [Path(file).name for file in args.files], "rows": parallel.digest(), "keep_vocab": digest(kept)}
    this_run = Run(str(args.output_dir), settings(args) | content, args.overwrite, cosmetic(args))
    if this_run.finished:
        runtime.log(f"{args.output_dir} holds this vocabulary already; --overwrite makes it again")
        return this_run.output_dir

    # 4. The vocabulary.
    table = BasicTable(args.lowercase, strip_accents)
    words = [table.words(text) for text in texts]
    tokens = trained_tokens(words, kept or SPECIAL, args.vocab_size, args.min_frequency)
    if len(tokens) < args.vocab_size:
        runtime.log(f"the text gives {len(tokens):,} tokens in place of {args.vocab_size:,}")

    # 5. What it makes of the text.
    this_run.best_dir.mkdir(exist_ok=True)
    vocab_file = this_run.best_dir / "vocab.txt"
    write_atomic(vocab_file, "".join(f"{token}\n" for token in tokens))
    wordpiece = WordPiece(vocab_file, args.lowercase, strip_accents)
    columns = {"en": list(dict.fromkeys(parallel.sources))}
    columns |= {language: rows.targets for language, rows in parallel.by_language().items()}
    facts = {language: coverage(wordpiece, column) for language, column in columns.items()}
    for language, fact in facts.items():
        shares = f"{fact['pieces_per_word']:.2f} pieces a word, {fact['unknown_share']:.3%} of the words unknown"
        runtime.log(f"{language}: {shares}".replace("%", " %"))

    # 6. Save.
    wordpiece.save(this_run.best_dir)
    this_run.finish(tokens=len(tokens), kept=len(kept or ()), languages=facts)
    runtime.log(f"written: {this_run.output_dir / 'vocab.txt'}: {len(tokens):,} tokens, {len(kept or ()):,} kept")
    return this_run.output_dir


def digest(tokens: list[str] | None) -> str | None:
    """SHA-256 of the tokens, as hexadecimal digits."""
    return None if tokens is None else hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def kept_tokens(path: str, lowercase: bool, strip_accents: bool | None) -> list[str]:
    """The tokens of a vocabulary file, or of a model's folder. Raises UserError when it is no BERT vocabulary, and for
    a model that reads capitals otherwise."""
    from distill.data.wordpiece import WordPiece

    place = Path(path).expanduser()
    if not place.is_dir():
        return WordPiece(place, lowercase, strip_accents).tokens
    wordpiece = WordPiece.from_folder(place)
    if wordpiece.lowercase != lowercase:
        raise UserError(f"--keep_vocab {path}: its model has lowercase {wordpiece.lowercase}; pass --lowercase so too")
    return wordpiece.tokens


def trained_tokens(rows: Sequence[Sequence[str]], first: Sequence[str], size: int, min_frequency: int) -> list[str]:
    """A vocabulary of `size` tokens, or as many as the text gives: `first`, then the characters, the most frequent
    first, then the pieces of several, in the order in which they are joined from the most frequent pairs.

    rows: words of each text. Raises UserError when `size` leaves no room for the characters.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.trainers import WordPieceTrainer

    def forms(word: str) -> list[str]:
        return [word[0], *(f"##{character}" for character in word[1:])]

    counts = Counter(form for row in rows for word in row for form in forms(word))
    frequent = {character: n for character, n in counts.items() if n >= min_frequency}
    characters = sorted(frequent, key=lambda character: (-frequent[character], character))
    known = set(first)
    least = len(known.union(characters))
    if size < least:
        raise UserError(
            f"--vocab_size {size}: {len(first):,} tokens are kept and the text has {least - len(first):,} other "
            f"characters; take at least {least}, or a higher --min_frequency"
        )
    # Given as special tokens the characters have fixed numbers; otherwise the trainer numbers them, and then decides
    # between equally frequent pairs, as its hash table happens to lie in memory. It must know both forms of each.
    both = dict.fromkeys([*characters, *(form for c in characters for form in (c[-1], f"##{c[-1]}"))])
    trainer = WordPieceTrainer(
        vocab_size=size + len(both),
        min_frequency=min_frequency,
        special_tokens=list(both),
        limit_alphabet=0,
        show_progress=False,
    )
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    # A word with a rare character is [UNK] as a whole, so nothing is to be learnt from it.
    whole = (" ".join(word for word in row if all(form in frequent for form in forms(word))) for row in rows)
    tokenizer.train_from_iterator(whole, trainer)
    numbers = tokenizer.get_vocab()
    joined = [token for token in sorted(numbers, key=numbers.__getitem__) if token not in both]
    return list(dict.fromkeys([*first, *characters, *joined]))[:size]


def coverage(wordpiece: "WordPiece", texts: Sequence[str]) -> dict[str, float]:
    """{'pieces_per_word', 'unknown_share'}: how finely the texts are cut, and which share of their words is [UNK]."""
    words = sum(map(len, wordpiece.words(texts)))
    pieces = [piece for row in wordpiece.pieces(texts) for piece in row]
    return {"pieces_per_word": len(pieces) / words, "unknown_share": pieces.count(wordpiece.unk_id) / words}


if __name__ == "__main__":
    run(main)
