"""The distinct English sentences of several data sets, one a line: text for general distillation.

    python benchmarks/plain_text.py runs/plain_text.txt --data_dir data/glue_data --tasks SST-2 MRPC RTE STS-B \
        --parallel data/multilingual/parallel/stsb_train.en-de.tsv

Training rows only. --parallel: files with the English sentence before the first tab.
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--parallel", nargs="*", type=Path, default=[])
    args = parser.parse_args()
    from distill.data.tasks import get_task, load_rows
    from distill.files import write_atomic
    from distill.options import TaskOptions

    lines: dict[str, None] = {}
    for name in args.tasks:
        rows = load_rows(TaskOptions(task_name=name, data_dir=args.data_dir), get_task(name), "train")
        for texts in (rows.text_a, rows.text_b or ()):
            lines.update(dict.fromkeys(" ".join(text.split()) for text in texts))
    for path in args.parallel:
        english = (line.partition("\t")[0] for line in path.read_text(encoding="utf-8").splitlines())
        lines.update(dict.fromkeys(" ".join(text.split()) for text in english))
    lines.pop("", None)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(args.output, "".join(f"{line}\n" for line in lines))
    print(f"written: {args.output}, {len(lines):,} lines")


if __name__ == "__main__":
    main()
