"""Score a sentence encoder that train.py made on a config's test data.

python test.py --config multilingual/minilm_rec_bottle_mcl.config --data_dir ../data/multilingual
python test.py --config multilingual/xlmr_rec_bottle_mcl.config --checkpoint my_student --gpu 0 --logdir my_results
"""

from collections.abc import Sequence
from pathlib import Path

from distill import runtime
from distill.cli import run
from distill.errors import UserError
from multistage.args import parse
from multistage.config import Config


def main(argv: Sequence[str] | None = None) -> Path:
    """Returns the folder of the results."""
    flags = parse(argv, __doc__, training=False)
    config = Config(flags.config)
    runtime.require_one_process()
    flags.start()
    from models.sentence_encoder import load_sentence_encoder
    from multistage.data import TEST_FOLDER, Texts
    from multistage.student import weight_file

    weights = weight_file(flags.checkpoint or config.folder(None))
    if not (weights.parent / "config.json").is_file():
        raise UserError(f"--checkpoint {weights.parent}: no config.json in it; pass the folder of a student")
    run_of_best = weights.parent.parent
    if weights.parent.name == "best" and (run_of_best / "run.yaml").is_file() and not flags.logdir:
        raise UserError(f"{run_of_best}: its training has not ended; pass --logdir, a folder for the results")
    folder = Path(flags.logdir).expanduser() if flags.logdir else weights.parent / TEST_FOLDER
    if folder.is_file():
        raise UserError(f"--logdir {folder}: is a file, not a folder")
    student = load_sentence_encoder(weights.parent)
    texts = Texts(config, flags.data_dir, testing=True, training=False)
    texts.report(folder, "test", student, weights, None, None)
    return folder


if __name__ == "__main__":
    run(main)
