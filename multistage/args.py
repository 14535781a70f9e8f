"""Flags of train.py and test.py. What is trained and how stands in the file of --config (see config.py)."""

import argparse
import contextlib
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from distill import runtime
from distill.errors import UserError


@dataclass(frozen=True)
class Flags:
    """The flags of train.py; test.py has those that it can use."""

    config: str
    checkpoint: str | None = None
    gpu: int | None = None
    logdir: str | None = None
    data_dir: str | None = None
    cache_dir: str = "~/.cache/paddle-distill"
    cache_limit_gb: float = 10.0
    distributed: bool = False
    do_test: bool = False
    seed: int = 0
    overwrite: bool = False

    def start(self) -> None:
        """Choose the device and join the other ranks: a GPU with --gpu, what the launcher gives with --distributed,
        the CPU else."""
        if self.gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(self.gpu)
        try:
            runtime.start("gpu" if self.gpu is not None else "auto" if self.distributed else "cpu")
        except UserError as error:
            line = str(error).replace("--device gpu", f"--gpu {self.gpu}")
            raise UserError(line.replace("run with --device cpu", "leave --gpu out to run on the CPU")) from None
        if not self.distributed and runtime.world_size() > 1:
            raise UserError("--distributed is needed: several processes were started")
        if self.distributed and runtime.world_size() == 1:
            raise UserError(
                "--distributed: one process alone; start `python -m paddle.distributed.launch --nproc_per_node 2 "
                "train.py ...`, or leave --distributed out"
            )


@contextlib.contextmanager
def own_names() -> Iterator[None]:
    """What the training loop says of its flags, in the names that they have here."""
    try:
        yield
    except UserError as error:
        line = str(error).replace("--output_dir", "--logdir").replace("--learning_rate", "[optim] learning_rate")
        raise type(error)(line) from error


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parse(argv: Sequence[str] | None, description: str, training: bool) -> Flags:
    """The flags of train.py, or with training False of test.py. Raises UserError naming the flag that cannot work."""
    parser = _Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def add(name: str, help: str, *more: str, **settings: Any) -> None:
        parser.add_argument(f"--{name}", *more, help=help, **settings)

    start = "a student's folder whose weights the training starts with" if training else "the student's folder"
    default = "" if training else "; without it the run in --logdir, or where train.py saved it"
    add("config", "INI file: what is trained, on what and how; the shipped ones lie in config/", "-c", metavar="FILE")
    add("checkpoint", start + default, "-checkpoint", metavar="FOLDER")
    add("gpu", "number of the GPU; without it the CPU", "-g", type=_whole, metavar="N")
    run = "folder of the run and of its student" if training else "folder of the results, or a run, for its test/"
    add("logdir", run, metavar="FOLDER")
    add("data_dir", "folder of the data, in place of the config's", metavar="FOLDER")
    if training:
        add("cache_dir", f"folder of the teacher's cached vectors (default {Flags.cache_dir})", metavar="FOLDER")
        limit = f"its size limit in GB; what does not fit is computed each time (default {Flags.cache_limit_gb:g})"
        add("cache_limit_gb", limit, type=_size, metavar="GB")
        add("distributed", "one of several devices; start by python -m paddle.distributed.launch", action="store_true")
        add("do_test", "report on the test data too, when trained", action="store_true")
        add("seed", "seed of initialisation, order and dropout (default 0)", type=_whole, metavar="N")
        add("overwrite", "replace another run's content in the folder", action="store_true")
    found, unknown = parser.parse_known_args(argv)
    if unknown:
        flag = unknown[0].partition("=")[0]
        close = difflib.get_close_matches(flag, parser._option_string_actions, n=1)
        raise UserError(f"{flag}: unknown flag{f'; did you mean {close[0]}?' if close else ''} (--help lists all)")
    if found.config is None:
        raise UserError("--config is needed: a file such as config/multilingual/mse.config")
    given = {field.name: getattr(found, field.name, None) for field in fields(Flags)}
    flags = Flags(**{name: value for name, value in given.items() if value is not None})
    if flags.distributed and flags.gpu is not None:
        raise UserError(f"--gpu {flags.gpu}: with --distributed the launcher gives the GPUs; leave --gpu out")
    return flags


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 on")
    return int(text)


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value
