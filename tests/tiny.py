"""What the tests need on the spot: a tiny BERT folder and tiny data folders in the official GLUE layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

POSITIVE = ("good", "great", "fun", "warm", "clever", "wonderful", "charming", "lovely")
NEGATIVE = ("bad", "dull", "weak", "poor", "boring", "awful", "painful", "tedious")
NOUNS = ("film", "movie", "story", "plot", "cast", "actor", "scene", "music", "book", "ending")
FILLERS = (
    "the", "a", "this", "that", "is", "was", "and", "with", "of", "to", "in", "very", "really", "quite", "so", "it",
)  # fmt: skip
PARAPHRASE = ("also", "too")  # decide label 1 of the pair task
CONTRAST = ("instead", "however")  # decide label 0
_WORDS = (
    "not", "never", "one", "two", "people", "time", "play", "work", "wonder", "charm", "love", "bor", "pain", "awe",
)  # fmt: skip
_PIECES = (
    "##ing", "##ful", "##ly", "##ed", "##s", "##er", "##i", "##o", "##t", "##e", "##d", "##u", "##a", "##n", "##r",
)  # fmt: skip
_WHOLE = tuple(w for w in POSITIVE + NEGATIVE if w not in ("wonderful", "charming", "lovely", "boring", "painful"))

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCAB: tuple[str, ...] = (
    *SPECIAL, *".,!?-'", *"bcdefghijklmnopqrstuvwxyz",  # "a" is a filler
    *FILLERS, *NOUNS, *_WHOLE, *PARAPHRASE, *CONTRAST, *_WORDS, *_PIECES,
)  # fmt: skip
"""106 tokens; 'wonderful', 'charming', 'lovely', 'boring' and 'painful' fall into two pieces each."""


def make_bert_folder(
    path: str | Path,
    labels: Sequence[str] = ("0", "1"),
    layers: int = 3,
    hidden: int = 32,
    seed: int = 0,
    vocab: Sequence[str] = VOCAB,
) -> Path:
    """Write a BertForSequenceClassification with random weights (4 heads, FFN 2 x hidden, 64 positions).

    The folder gets config.json (with id2label), vocab.txt, tokenizer_config.json and model.safetensors. `labels=()`
    makes a regression model (one output). The same arguments give the same bytes of weights. Returns `path`.
    """
    import paddle
    from paddlenlp.transformers import BertConfig, BertForSequenceClassification

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        type_vocab_size=2,
        initializer_range=0.1,
        num_labels=len(labels) or 1,
    )
    if labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    paddle.seed(seed)
    model = BertForSequenceClassification(config)
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    settings = {"do_lower_case": True, "tokenizer_class": "BertTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return folder


def make_masked_lm_folder(path: str | Path, vocab: Sequence[str] = VOCAB, seed: int = 0) -> Path:
    """Write a BertForMaskedLM with random weights by PaddleNLP (2 layers, hidden 32, 64 positions); returns `path`."""
    import paddle
    from paddlenlp.transformers import BertConfig, BertForMaskedLM

    folder = Path(path)
    paddle.seed(seed)
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = BertForMaskedLM(config)
    model.cls.predictions.decoder.bias.set_value(paddle.randn([len(vocab)]))
    model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    return folder


def save_as_transformers_5(folder: Path, lowercase: bool = True, strip_accents: bool | None = None) -> Path:
    """Put tokenizer.json, made by the library `tokenizers`, in the place of a folder's vocab.txt; returns `folder`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(True, True, strip_accents, lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS]:0 $A:0 [SEP]:0",
        "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        [(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece("##")
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"backend": "tokenizers", "do_lower_case": lowercase, "strip_accents": strip_accents}
    settings |= {"tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "vocab.txt").unlink()
    return folder


def keep_one_token_type(folder: Path) -> Path:
    """Cut the model of a folder down to token type 0; returns `folder`."""
    from safetensors.numpy import load_file, save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 1}), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if "token_type_embeddings" in name:
            weights[name] = weights[name][:1].copy()
    save_file(weights, folder / "model.safetensors", metadata={"format": "np"})
    return folder


def make_glue_data(path: str | Path, task: str = "SST-2", rows: int = 64, seed: int = 0) -> Path:
    """Write `path`/TASK/{train,dev,test}.tsv in GLUE's own columns: `rows` rows in train, half as many in dev and test.

    SST-2: a word of POSITIVE or NEGATIVE decides the label. MRPC: a word of PARAPHRASE or CONTRAST in the second
    sentence does. STS-B: the score is 5 x the share of words the sentences have in common. No text occurs twice.
    Labels are balanced. Returns `path`.
    """
    folder = Path(path) / task
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    for split, n in (("train", rows), ("dev", max(rows // 2, 2)), ("test", max(rows // 2, 2))):
        lines = [_HEADERS[task][split == "test"]]
        for i in range(n):
            lines.append(_row(task, split, i, rng, seen))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


_STSB = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
_HEADERS = {  # (labelled splits, test)
    "SST-2": ("sentence\tlabel", "index\tsentence"),
    "MRPC": ("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "index\t#1 ID\t#2 ID\t#1 String\t#2 String"),
    "STS-B": (_STSB + "\tscore", _STSB),
}


_PARSES = "sentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
_TEXTS = f"index\tpromptID\tpairID\tgenre\t{_PARSES}\tsentence1\tsentence2"
MNLI = {
    "train": f"{_TEXTS}\tlabel1\tgold_label",
    "dev": f"{_TEXTS}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
    "test": _TEXTS,
}
"""The columns of MNLI's files by kind of split."""


def make_task_data(path: str | Path, task: str, rows: int = 12) -> Path:
    """Write `path`/TASK with the official files of CoLA, QQP, MNLI or BoolQ: `rows` rows in train, half as many in the
    first dev file, one more in MNLI's second.

    Row i has class i modulo their number; a word of NEGATIVE, POSITIVE or PARAPHRASE in the first text says so. As in
    the official data, a training row of QQP has no second question, and CoLA's files have no header. Returns `path`.
    """
    from distill.data.tasks import get_task

    labels, dev_splits = get_task(task).labels, get_task(task).dev_splits
    folder = Path(path) / task
    folder.mkdir(parents=True)
    rng, seen = np.random.default_rng(0), set[str]()
    for number, split in enumerate(("train", *dev_splits)):
        header = {"QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "MNLI": MNLI[split.partition("_")[0]]}
        lines = [header[task]] if task in header else []
        for i in range(rows if number == 0 else rows // 2 + number - 1):
            label, deciding = labels[i % len(labels)], (NEGATIVE, POSITIVE, PARAPHRASE)[i % len(labels)]
            a, b = _sentence(rng, seen, deciding), _sentence(rng, seen, ())
            if task == "CoLA":
                lines.append(f"gj04\t{label}\t{'' if label == '1' else '*'}\t{a}")
            elif task == "QQP":
                lines.append(f"{i}\t{2 * i}\t{2 * i + 1}\t{a}\t{'' if (split, i) == ('train', 1) else b}\t{label}")
            elif task == "MNLI":
                given = [label] * (2 if split == "train" else 6)
                lines.append("\t".join([str(i), "1", "1n", "fiction", "(", "(", "(", "(", a, b, *given]))
            else:
                lines.append(json.dumps({"question": a, "passage": b, "idx": i, "label": label == "true"}))
        name = {("BoolQ", "train"): "train.jsonl", ("BoolQ", "dev"): "val.jsonl"}.get((task, split), f"{split}.tsv")
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(path)


def _sentence(rng: np.random.Generator, seen: set[str], deciding: Sequence[str]) -> str:
    while True:
        words = [str(w) for w in rng.choice(FILLERS, rng.integers(2, 9))] + [str(rng.choice(NOUNS))]
        if deciding:
            words.insert(int(rng.integers(len(words))), str(rng.choice(deciding)))
        text = " ".join(words) + (" ." if rng.random() < 0.5 else "")
        if text not in seen:
            seen.add(text)
            return text


def _row(task: str, split: str, i: int, rng: np.random.Generator, seen: set[str]) -> str:
    label = i % 2
    if task == "SST-2":
        text = _sentence(rng, seen, (NEGATIVE, POSITIVE)[label])
        return f"{i}\t{text}" if split == "test" else f"{text}\t{label}"
    if task == "MRPC":
        first, second = _sentence(rng, seen, ()), _sentence(rng, seen, (CONTRAST, PARAPHRASE)[label])
        return f"{i if split == 'test' else label}\t{1000 + 2 * i}\t{1001 + 2 * i}\t{first}\t{second}"
    first = _sentence(rng, seen, ())
    words = first.split()
    kept = int(rng.integers(len(words) + 1))
    second = " ".join(words[:kept] + [str(w) for w in rng.choice(_WORDS, len(words) - kept)])
    row = f"{i}\tmain-tiny\ttiny\t2020\t{i}\tnone\tnone\t{first}\t{second}"
    return row if split == "test" else f"{row}\t{5 * kept / len(words):.3f}"
