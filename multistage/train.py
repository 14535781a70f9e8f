"""Distil sentence encoders in stages: into few parameters, and into many languages.

    python train.py --config Distill/minilm_bottle_distill.config --data_dir ../data/multilingual
    python train.py --config multilingual/minilm_rec_bottle_mcl.config --gpu 0 --do_test --logdir my_student
    python -m paddle.distributed.launch --nproc_per_node 2 train.py --config multilingual/mse.config --distributed

Source: Ding et al. 2022 (arXiv 2209.05869); its baseline is Reimers and Gurevych 2020 (arXiv 2004.09813).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill import runtime
from distill.cli import run
from distill.errors import UserError
from multistage.args import own_names, parse
from multistage.config import COSMETIC, Config


@own_names()
def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the student's folder."""
    # 1. Flags and config, before anything heavy is imported.
    flags = parse(argv, __doc__, training=True)
    config = Config(flags.config)
    folder, options = config.folder(flags.logdir), config.options(flags.seed)
    flags.start()
    import numpy as np
    import paddle
    from paddle import Tensor

    from distill.data.batching import BucketBatches
    from distill.data.parallel import GroupedBatches, InterleavedBatches, numbered
    from distill.evaluation.sentences import sts_scores
    from distill.teachers.vectors import teacher_vectors
    from distill.training.collapse import spread_scores, teacher_scale
    from distill.training.fit import Batches, fit
    from distill.training.monitor import Run, refuse_loss
    from models.sentence_encoder import load_sentence_encoder
    from multistage.data import TEST_FOLDER, Texts, load_teacher
    from multistage.losses import pair_losses
    from multistage.student import create_student, weight_file

    # 2. Task and data.
    texts = Texts(config, flags.data_dir, flags.do_test)
    train, learns = texts.parallel["train"], config.method.learns

    # 3. Teacher.
    teacher = load_teacher(config, folder)
    teacher = (teacher.without_layers() if learns == "embeddings" else teacher).fix()
    digest = teacher.digest()

    # 4. Student.
    student, origin = create_student(config, folder, flags.checkpoint, flags.seed, train)
    if student.dim != teacher.dim:
        raise UserError(
            f"{config.path}: vectors of {student.dim} numbers cannot learn from a teacher's of {teacher.dim}; give "
            "another teacher_path or student_model_path"
        )

    # 5. Losses.
    parts = pair_losses(config.method, config["model", "scale"])

    def losses(batch: dict[str, Any]) -> dict[str, Tensor]:
        source = paddle.index_select(student(*batch["source"]), batch["of_row"])
        return parts(source, student(*batch["target"]), batch)

    # 6. Fit, with the teacher's vectors from its cache.
    if flags.checkpoint:
        refuse_loss(folder, "--checkpoint", weight_file(flags.checkpoint))
    for section, key in (
        ("data", "teacher_path"), ("model", "student_model_path"), ("model", "vocab_path"), ("model", "emb_ckp_path"),
    ):  # fmt: skip
        if config[section, key]:
            refuse_loss(folder, f"[{section}] {key}", config.place(section, key, folder))
    content = {"teacher": digest, "rows": texts.digest(), "student": origin, "seed": flags.seed}
    this_run = Run(folder, config.settings() | content, flags.overwrite, COSMETIC)
    if this_run.finished:
        runtime.log(f"{folder} holds this run, finished; --overwrite trains it again, test.py scores it")
        return folder
    wanted = {"teacher": train.sources} | ({} if learns == "teacher" else {"teacher_target": train.targets})
    with this_run.timer("teacher"):
        vectors = {
            name: teacher_vectors(teacher.encode, digest, sentences, flags.cache_dir, flags.cache_limit_gb)
            for name, sentences in wanted.items()
        }
        scale = teacher_scale(vectors["teacher"].batch(np.arange(min(len(train), 256))))
        looked_at = list(dict.fromkeys(texts.sts["dev"]["en-en"].text_a))[:1000]
        their_look = teacher.encode(looked_at)
    ids = {"source": student.tokens(train.sources), "target": student.tokens(train.targets)}
    sentences = numbered(train.sources)

    def load(chosen: np.ndarray) -> dict[str, Any]:
        _, first, of_row = np.unique(sentences[chosen], return_index=True, return_inverse=True)
        batch: dict[str, Any] = {
            "source": student.batch(ids["source"], chosen[first]),  # each sentence once
            "of_row": of_row,
            "target": student.batch(ids["target"], chosen),
        }
        with this_run.timer("teacher"):
            return batch | {name: scale * found.batch(chosen) for name, found in vectors.items()}

    def dev_scores() -> dict[str, float]:
        vectors: dict[str, np.ndarray] = {}

        def encode(some: list[str]) -> np.ndarray:
            found = student.encode(some, options.eval_batch_size)
            vectors.update(zip(some, found, strict=True))
            return found

        scores = sts_scores(encode, texts.sts["dev"])["mean"]
        return scores | spread_scores(this_run, np.stack([vectors[text] for text in looked_at]), their_look)

    lengths = np.maximum(ids["source"].lengths, ids["target"].lengths)
    dealt = (options.batch_size, flags.seed, runtime.rank(), runtime.world_size())
    plan: BucketBatches
    if config.method.beside is None:
        plan = GroupedBatches(lengths, sentences, *dealt)
    else:  # a sentence's translations would be taken for different sentences
        plan = InterleavedBatches(lengths, train, *dealt)
    fit(student.encoder, losses, Batches(plan, load), options, this_run, dev_scores, "spearman", student.save)

    # 7. Evaluate the best. 8. Save.
    languages = sorted(set(train.languages))
    if runtime.is_main():
        best = load_sentence_encoder(this_run.best_dir)
        for split in texts.sts:
            into = folder if split == "dev" else folder / TEST_FOLDER
            taught = (lambda some: scale * teacher.encode(some)) if learns == "teacher" else None
            texts.report(into, split, best, this_run.best_dir / "model.safetensors", taught, flags.seed)
    this_run.finish(task="sentences", train_rows=len(train), languages=languages)
    return folder


if __name__ == "__main__":
    run(main)
