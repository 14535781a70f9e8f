"""From the command line to a checked dataclass, before anything heavy is imported.

args = parse(Args, argv)         # flags over --config file.yaml over the dataclass' defaults
if __name__ == "__main__":
    run(main)                    # one line for what the user can mend, exit status 2
"""

import argparse
import dataclasses
import difflib
import math
import os
import signal
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import simple_parsing
import yaml

from distill.errors import UserError

Args = TypeVar("Args")


class _Parser(simple_parsing.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.replace("\n", " "))

    def format_help(self) -> str:
        # simple_parsing keeps a flag's spellings in a set: without this --help differs from call to call.
        for action in self._actions:
            name = action.dest.rpartition(".")[2]
            action.option_strings = sorted(action.option_strings, key=lambda flag: (flag != f"--{name}", flag))
            if not action.option_strings:
                action.metavar = name.upper()  # it would be called by its type
        return super().format_help()


def parse(cls: type[Args], argv: Sequence[str] | None = None, description: str = "") -> Args:
    """The options `cls` filled from its defaults, then `--config FILE.yaml`, then the flags, each overriding the
    former.

    `--config` takes a path, or the name of a file in the `presets` folder beside the recipe's args.py.
    Raises UserError naming the flag for an unknown flag or key, a value of the wrong type or out of its bounds.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    config, flags = finder.parse_known_args(_at_home(argv))

    parser = _Parser(description=description or (cls.__doc__ or "").strip(), allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="YAML with any of the options below; flags override it")
    default = _from_yaml(cls, config.config) if config.config else None
    parser.add_arguments(cls, "options", default=default)  # type: ignore[type-var]
    parsed, unknown = parser.parse_known_args(flags)
    if unknown:
        flag = unknown[0].partition("=")[0]
        known = [name for action in parser._actions for name in action.option_strings]
        close = difflib.get_close_matches(flag, known, n=1)
        raise UserError(f"{flag}: unknown flag{f'; did you mean {close[0]}?' if close else ''} (--help lists all)")
    _check_bounds(parsed.options)
    options: Args = parsed.options
    return options


def _at_home(argv: Sequence[str]) -> list[str]:
    """The flags' values with ~ as the home folder: a shell leaves that of --flag=~/folder as it is."""
    words = []
    for before, word in zip(["", *argv], argv, strict=False):
        flag, equals, value = word.partition("=")
        if word.startswith("--") and equals:
            word = f"{flag}={os.path.expanduser(value)}"
        elif before.startswith("--") and "=" not in before:
            word = os.path.expanduser(word)
        words.append(word)
    return words


def _from_yaml(cls: type[Args], name: str) -> Args:
    path = _find_config(cls, name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise UserError(f"{path}:{line}: not valid YAML") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: expected `option: value` lines")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in fields:
            close = difflib.get_close_matches(str(key), list(fields), n=1)
            raise UserError(f"{path}: unknown option `{key}`{f'; did you mean `{close[0]}`?' if close else ''}")
        found = _as_type(f"{path}: `{key}`", fields[key].type, value)
        values[key] = os.path.expanduser(found) if isinstance(found, str) and found != fields[key].default else found
    # What goes together is judged once, when the flags have been read too.
    default = object.__new__(cls)
    for key, field in fields.items():
        preset = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        setattr(default, key, values.get(key, preset))
    return default


def _find_config(cls: type, name: str) -> Path:
    presets = Path(sys.modules[cls.__module__].__file__ or "").resolve().parent / "presets"
    for path in (Path(name), presets / name, presets / f"{name}.yaml"):
        if path.is_file():
            return path
    found = ", ".join(sorted(path.stem for path in presets.glob("*.yaml"))) or "none"
    raise UserError(f"--config {name}: no such file; presets of this recipe: {found}")


def _as_type(where: str, kind: Any, value: Any) -> Any:
    """`value` of a YAML file as the field's type; YAML reads 5e-5 as text, so numbers are tried from text too."""
    if typing.get_origin(kind) is list:
        if not isinstance(value, list):
            raise UserError(f"{where}: {value!r} is not a list; write [{value}]")
        return [_as_type(where, typing.get_args(kind)[0], item) for item in value]
    kinds = [k for k in (bool, int, float, str) if k is kind or k in getattr(kind, "__args__", ())]
    if value is None and type(None) in getattr(kind, "__args__", ()):
        return None
    for wanted in kinds:
        if isinstance(value, wanted) and not (isinstance(value, bool) and wanted is not bool):
            return value
        if wanted is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                pass
    raise UserError(f"{where}: {value!r} is not of type {'/'.join(k.__name__ for k in kinds)}")


def _check_bounds(options: Any) -> None:
    for field in dataclasses.fields(options):
        value, bounds = getattr(options, field.name), field.metadata
        if value is None:
            continue
        flag = f"--{field.name} {value}"
        if bounds.get("allowed") and value not in bounds["allowed"]:
            raise UserError(f"{flag}: must be one of {', '.join(bounds['allowed'])}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{flag}: must be a finite number")
        if bounds.get("low") is not None and value < bounds["low"]:
            raise UserError(f"{flag}: must be at least {bounds['low']}")
        if bounds.get("high") is not None and value > bounds["high"]:
            raise UserError(f"{flag}: must be at most {bounds['high']}")
        if bounds.get("above") is not None and not value > bounds["above"]:
            raise UserError(f"{flag}: must be above {bounds['above']}")


def settings(options: Any) -> dict[str, Any]:
    """The parsed options as a plain dictionary, in the order of the fields: what run.yaml holds."""
    return dataclasses.asdict(options)


def cosmetic(options: Any) -> set[str]:
    """Names of the options that cannot change a result: a run continues with other values of these."""
    return {field.name for field in dataclasses.fields(options) if field.metadata.get("cosmetic")}


def _unwind(number: int, frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one, as `timeout` sends, would break off the tidying up
    raise SystemExit(128 + number)


def run(main: Callable[[], Any]) -> NoReturn:
    """Call `main` and exit: 0, or 2 with one line on stderr for what the user can mend, or 130 after Ctrl-C, or 143
    after SIGTERM, where nothing else handles that."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _unwind)
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
    sys.exit(0)
