"""A BERT that is not fine-tuned as a teacher of layers: for text that streams by, so nothing is cached."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import paddle
from paddle import Tensor

from distill.data.wordpiece import WordPiece
from distill.encoders import inference
from distill.encoders.cpu import split_heads
from distill.encoders.folder import find_model, load_bert
from distill.encoders.taps import Reading, scaled_scores
from distill.files import sha256


class EncoderTeacher:
    """The BertModel of a folder, or of a name that PaddleNLP downloads, in eval mode; a head in it is left out.

    model, wordpiece, digest  as in `distill.teachers.teacher.Teacher`

    Raises UserError when it is not a sound BERT or reads fewer than `max_length` tokens.
    """

    def __init__(self, path: str | Path, max_length: int) -> None:
        found = find_model(path)
        found.check_length(max_length)
        self.model = load_bert(found.weights)
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.stop_gradient = True
        self.wordpiece = WordPiece.from_folder(found.folder)
        content = [sha256(found.weights), found.config, self.wordpiece.digest(), max_length]
        self.digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self._passes: dict[tuple[int, ...], inference.Pass] = {}

    def layers(self, batch: dict[str, np.ndarray], chosen: Sequence[int]) -> dict[str, list[Tensor]]:
        """What the layers `chosen` (0: the embeddings, which have no scores) give for a padded batch (`Encoded.pad`).

        hidden: each [B, L, H]; scores: each [B, heads, L, L], before softmax, scaled, without the padding mask. At
        padding they hold whatever the model makes of it.
        """
        key = tuple(chosen)
        if key not in self._passes:
            make = inference.compiled if inference.available() else inference.eager
            scored = tuple(layer for layer in key if layer)
            self._passes[key] = make(Reading(self.model, key, scored), inference.BERT_INPUTS)
        found = [paddle.to_tensor(value) for value in self._passes[key](batch)]
        hidden, rest = found[: len(key)], found[len(key) :]
        queries, keys = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        heads = self.model.config.num_attention_heads
        with paddle.no_grad():
            pairs = zip(queries, keys, strict=True)
            scores = [scaled_scores(split_heads(q, heads), split_heads(k, heads)) for q, k in pairs]
        return {"hidden": hidden, "scores": scores}
