"""tokenizer.json, in which transformers 5 saves a BERT's tokenizer, without a vocab.txt."""

import json
from pathlib import Path
from typing import Any

from distill.errors import UserError
from distill.files import read_settings

# What `distill.data.wordpiece` does; a file that says anything else of these would have other ids.
_READ: dict[str, dict[str, Any]] = {
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    },
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
}
SPECIALS = ("[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
_PAIR = [
    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    {"Sequence": {"id": "B", "type_id": 1}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
]


def read_tokenizer(path: str | Path) -> tuple[list[str], bool, bool | None]:
    """The tokens in the order of their ids, whether text is lower-cased, and whether accents are stripped (None: where
    it is lower-cased).

    Raises UserError when the file is missing or is not exactly BERT's tokenizer.
    """
    content = read_settings(path)
    for part, needed in _READ.items():
        found = content.get(part)
        for name, value in needed.items():
            if not isinstance(found, dict) or found.get(name) != value:
                there = found.get(name) if isinstance(found, dict) else None
                raise _other(path, f"{part}.{name} is {json.dumps(there)}, not {json.dumps(value)}")
    ids = content["model"].get("vocab")
    whole = isinstance(ids, dict) and all(type(number) is int for number in ids.values())
    if not whole or sorted(ids.values()) != list(range(len(ids))):
        raise _other(path, "the ids of model.vocab are not 0, 1, ..., one for each token")
    if any(not token or "\n" in token or "\r" in token for token in ids):
        raise _other(path, "a token of model.vocab is empty or has a line end in it")
    for token in content.get("added_tokens") or []:
        if not isinstance(token, dict):
            raise _other(path, "added_tokens are not objects")
        if token.get("content") not in SPECIALS or ids.get(token["content"]) != token.get("id"):
            raise _other(path, f"the added token {json.dumps(token.get('content'))} is none of BERT's own")
    processor = content.get("post_processor") or {}
    bert = {name: [token, ids.get(token)] for name, token in (("cls", "[CLS]"), ("sep", "[SEP]"))}
    ways: tuple[dict[str, Any], ...] = (
        {"type": "BertProcessing"} | bert,
        {"type": "TemplateProcessing", "single": _PAIR[:3], "pair": _PAIR},
    )
    if not isinstance(processor, dict) or not any(way.items() <= processor.items() for way in ways):
        raise _other(path, "post_processor does not make [CLS] a [SEP] b [SEP]")
    lowercase, strip_accents = (content["normalizer"].get(name) for name in ("lowercase", "strip_accents"))
    return sorted(ids, key=ids.__getitem__), bool(lowercase), strip_accents


def _other(path: str | Path, why: str) -> UserError:
    return UserError(f"{path}: {why}: this is not BERT's own tokenizer; pass a BERT with that one, or its vocab.txt")
