"""Score a sentence encoder that train.py made on a config's test data.

python test.py --config multilingual/minilm_rec_bottle_mcl.config --data_dir ../data/multilingual
python test.py --config multilingual/xlmr_rec_bottle_mcl.config --checkpoint my_student --gpu 0 --logdir my_results
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill import runtime
from distill.cli import run
from distill.errors import NotThere, UserError
from distill.pretrained import MINILM
from multistage.args import parse
from multistage.config import Config

if TYPE_CHECKING:
    from distill.evaluation.sentences import Encode
    from multistage.data import Texts


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the folder of the results."""
    flags = parse(argv, __doc__, training=False)
    config = Config(flags.config)
    runtime.require_one_process()
    flags.start()
    from models.predictor import read_run
    from models.sentence_encoder import load_sentence_encoder
    from multistage.data import TEST_FOLDER, Texts
    from multistage.student import weight_file

    if flags.checkpoint == MINILM and not flags.logdir:
        raise UserError(f"--checkpoint {MINILM}: pass --logdir RESULTS too, a folder for the results")
    logdir = Path(flags.logdir).expanduser() if flags.logdir else None
    of_run = logdir is not None and (logdir / "run.yaml").is_file()
    weights = weight_file(flags.checkpoint or (logdir if of_run else config.folder(None)))
    if not (weights.parent / "config.json").is_file():
        raise UserError(f"--checkpoint {weights.parent}: no config.json in it; pass the folder of a student")
    trained = weights.parent
    if trained.name == "best" and (trained.parent / "run.yaml").is_file():
        trained = trained.parent
        if logdir is None or of_run:
            asked = f"--checkpoint {trained} --logdir RESULTS, a folder for the results"
            raise UserError(f"{trained}: its training has not ended; pass {asked}")
    folder = trained / TEST_FOLDER if logdir is None or of_run else logdir
    if logdir is not None and of_run and logdir.resolve() != trained.resolve():
        raise UserError(f"--logdir {logdir}: holds a run, which --checkpoint is not; pass another folder")
    if folder.is_file():
        raise UserError(f"--logdir {folder}: is a file, not a folder")
    student = load_sentence_encoder(weights.parent)
    texts = Texts(config, flags.data_dir, testing=True, training=False)
    seed = read_run(trained).get("seed")
    texts.report(folder, "test", student, weights, taught(config, texts, trained, student.dim), seed)
    return folder


def taught(config: Config, texts: "Texts", student: Path, dim: int) -> "Encode | None":
    """What the student, with vectors of `dim` numbers, was to match, where the config's teacher teaches it and is still
    there."""
    from multistage.data import load_teacher, taught_by

    if config.method.learns != "teacher" or "test" not in texts.parallel:
        return None
    try:
        teacher = load_teacher(config, student)
    except NotThere as error:
        runtime.log(f"no squared error from the teacher: {error}")
        return None
    if teacher.dim != dim:
        runtime.log(f"no squared error from the teacher: its vectors have {teacher.dim} numbers, these {dim}")
        return None
    return taught_by(teacher.fix(), texts.parallel["test"].sources)


if __name__ == "__main__":
    run(main)
