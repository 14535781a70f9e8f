"""The student that a config asks for, with the weights that its training starts with."""

import dataclasses
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from distill.data.alignment import translations
from distill.data.parallel import Parallel
from distill.data.wordpiece import Encoded, WordPiece
from distill.errors import UserError
from distill.files import sha256
from distill.pretrained import MINILM, minilm_folder
from distill.runtime import log
from distill.tensors import fill, load_tensors
from models.recurrent_encoder import TABLE, kept_layers, layer_number, narrowed, revocabularied
from models.sentence_encoder import EncoderFolder, Reader, SentenceEncoder, Subwords, build, read_folder
from multistage.config import SHAPE, Config


def create_student(
    config: Config, run: Path, checkpoint: str | None, seed: int, train: Parallel
) -> tuple[SentenceEncoder, str]:
    """The student, in train mode, and a digest of what it starts from.

    run: the run's folder, beside which earlier stages' lie. checkpoint: see `weight_file`. What is random follows
    `seed`. train: the sentences that vocab_path's new wordpieces are explained by. Raises UserError, naming the
    config's key, for what does not fit together.
    """
    source, origins = _source(config, run, seed, train)
    if config.method.learns == "embeddings":
        source = dataclasses.replace(source, pooling="mean")  # [CLS] alone would be the same of every sentence
        shape, arrays = kept_layers(source.config, source.arrays, 0, 1)
        how = config["model", "embedding_init"] or "random"
        shape, arrays = narrowed(shape, arrays, config["model", "embedding_size"], how, seed)
        source = dataclasses.replace(source, config=shape, arrays=arrays)
    elif config.method.recurrent:
        keep, repeat = config["model", "layers_to_keep"], config["model", "repeat"]
        shape, arrays = kept_layers(source.config, source.arrays, keep, repeat)
        source = dataclasses.replace(source, config=shape, arrays=arrays)
        if config["model", "emb_ckp_path"]:
            previous = read_folder(config.place("model", "emb_ckp_path", run))
            source = _continued(config, source, previous)
            origins.append(sha256(previous.weights))
    dropout = config["model", "hidden_dropout_prob"]
    if dropout is not None:
        source = dataclasses.replace(source, config=dataclasses.replace(source.config, hidden_dropout_prob=dropout))
    for key in SHAPE:
        said, have = config["model", key], getattr(source.config, key)
        if said not in (None, have):
            raise UserError(f"{config.path}: [model] {key} = {said}: the student's is {have}; mend or remove the line")
    length, most = config["data", "max_seq_length"], source.config.max_length
    if length > most:
        raise UserError(f"{config.path}: [data] max_seq_length = {length}: the student reads at most {most} tokens")
    encoder = build(source.config, source.arrays, source.weights)
    if checkpoint:
        file = weight_file(checkpoint)
        _require_same_reading(checkpoint, file, source)
        fill(encoder, load_tensors(file), file)
        origins.append(sha256(file))
    return SentenceEncoder(encoder, source.reader, length, source.pooling), " ".join(origins)


def weight_file(path: str | Path) -> Path:
    """The weights of --checkpoint: a student's folder, that of a run, finished or not, one of its
    `checkpoints/step-N`, or the file itself; or `all-MiniLM-L6-v2`."""
    place = minilm_folder() if str(path) == MINILM else Path(path).expanduser()
    files = (place, *(place / name for name in ("model.safetensors", "best/model.safetensors", "weights.safetensors")))
    for file in files:
        if file.is_file():
            return file
    raise UserError(f"--checkpoint {path}: no student there; pass the folder that train.py wrote")


def _source(config: Config, run: Path, seed: int, train: Parallel) -> tuple[EncoderFolder, list[str]]:
    """What student_model_path holds, with the wordpieces of vocab_path where that is given, and its digests."""
    source = read_folder(config.place("model", "student_model_path", run))
    origins = [sha256(source.weights), source.reader.digest()]
    if not config["model", "vocab_path"]:
        return source, origins
    wordpiece = WordPiece.from_folder(config.place("model", "vocab_path", run))
    shape, arrays, shared = revocabularied(
        source.config, source.arrays, source.reader.tokens, wordpiece.tokens, wordpiece.pad_id, seed
    )
    log(f"vocabulary of {wordpiece.size:,} wordpieces: {shared:,} start with the vectors of {source.weights.parent}")
    texts = [wordpiece.encode(column, None, shape.max_length) for column in (train.sources, train.targets)]
    arrays[TABLE], translated = translated_vectors(arrays[TABLE], *texts)
    log(f"{translated:,} wordpieces that only translations have start with the mean of what they translate")
    return dataclasses.replace(source, config=shape, arrays=arrays, reader=wordpiece), [*origins, wordpiece.digest()]


def translated_vectors(table: np.ndarray, source: Encoded, target: Encoded) -> tuple[np.ndarray, int]:
    """The table [V, H] in which each token that is in targets and in no source has the mean vector of the source tokens
    that it translates, weighted by `distill.data.alignment.translations`; and how many tokens those are."""
    t, s, p = translations(source, target)
    chosen = np.intersect1d(np.setdiff1d(target.ids, source.ids), t)  # of very many sentences not all are explained
    weights = csr_array((p, (t, s)), shape=(len(table), len(table)), dtype=table.dtype)
    table = table.copy()
    table[chosen] = weights[chosen] @ table
    return table, len(chosen)


def _read_alike(one: Reader, other: Reader) -> bool:
    """Whether two readers have the same pieces; tokenizer.json files of the same ones differ in other things."""
    if isinstance(one, Subwords) and isinstance(other, Subwords):
        return one.tokens == other.tokens
    return one.digest() == other.digest()


def _require_same_reading(checkpoint: str, file: Path, student: EncoderFolder) -> None:
    """Raise UserError when the weights' own folder, where there is one, says that they are of a student with another
    vocabulary or with layers that repeat otherwise: the shapes alone would not tell."""
    run = file.parent.parent.parent  # of checkpoints/step-N
    for folder in (file.parent, run, run / "best"):
        if not (
            (folder / "config.json").is_file()
            and any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json"))
        ):
            continue
        found = read_folder(folder)
        if not _read_alike(found.reader, student.reader):
            raise UserError(
                f"--checkpoint {checkpoint}: its student reads another vocabulary; pass one of this config's"
            )
        if found.config.repeat != student.config.repeat:
            there, here = found.config.repeat, student.config.repeat
            raise UserError(f"--checkpoint {checkpoint}: its layers are read {there} times, here {here} times")
        return


def _continued(config: Config, student: EncoderFolder, previous: EncoderFolder) -> EncoderFolder:
    """The student with the earlier stage's embeddings, and with its layers where it has any."""
    here = f"{config.path}: [model] emb_ckp_path = {config['model', 'emb_ckp_path']}"
    if not _read_alike(previous.reader, student.reader):
        raise UserError(f"{here}: it reads another vocabulary than student_model_path; all stages need the same")
    wanted = {"embedding_size": config["model", "embedding_size"]}
    if previous.config.num_hidden_layers:
        wanted |= {"layers_to_keep": config["model", "layers_to_keep"], "repeat": config["model", "repeat"]}
    have = dataclasses.asdict(previous.config) | {"layers_to_keep": previous.config.num_hidden_layers}
    for key, said in wanted.items():
        if have[key] != said:
            raise UserError(f"{here}: its {key} is {have[key]}, here {said}; all stages need the same")
    if previous.config.num_hidden_layers:
        return dataclasses.replace(previous, reader=student.reader)
    own = {name: a for name, a in student.arrays.items() if layer_number(name) >= 0}
    shape = dataclasses.replace(student.config, embedding_size=previous.config.embedding_size)
    return dataclasses.replace(student, config=shape, arrays=previous.arrays | own)
