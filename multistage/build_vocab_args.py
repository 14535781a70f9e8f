"""Flags of build_vocab.py."""

from dataclasses import dataclass

from simple_parsing import field

from distill.errors import UserError
from distill.options import option


@dataclass
class BuildVocabArgs:
    """Train the wordpiece vocabulary of a student that reads several languages."""

    files: list[str] = field(
        default_factory=list, positional=True, nargs="*", help="parallel sentences, such as train.en-de.tsv[.gz]"
    )
    output_dir: str | None = option(None, "folder of vocab.txt and tokenizer_config.json", cosmetic=True)
    vocab_size: int = option(40_000, "tokens, with special ones and those that are kept", low=6)
    keep_vocab: str | None = option(
        None, "vocabulary whose tokens come first, under their numbers: the English teacher's vocab.txt or its folder; "
        "new ones are then learnt from the translations alone"
    )  # fmt: skip
    lowercase: bool = option(True, "lower-case all text, as uncased BERT does")
    strip_accents: str = option(
        "auto", "read é as e; auto: when text is lower-cased, as BERT does", choices=("auto", "yes", "no")
    )
    min_frequency: int = option(2, "leave out characters, and join pieces, that are there less often", low=1)
    max_sentences: int | None = option(None, "lines read of each file", low=1)
    overwrite: bool = option(False, "replace another vocabulary in --output_dir", cosmetic=True)

    def require_files(self) -> None:
        """Raises UserError without text, or without a place for the vocabulary."""
        if not self.files:
            raise UserError("give the files of parallel sentences: python build_vocab.py train.en-de.tsv ...")
        if not self.output_dir:
            raise UserError("--output_dir is needed: the folder that the vocabulary is written into")
