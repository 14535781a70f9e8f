"""The main job from end to end: fine-tune a teacher, train a BiLSTM without and with it, compare the three, use the
student.

make demo                       # on review sentences that the project generates itself; under 5 minutes on 2 cores
make demo DATA_DIR=glue_data    # on SST-2 from the folder that holds SST-2/train.tsv and dev.tsv
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill import runtime
from distill.cli import parse, run
from distill.files import read_json, write_atomic
from distill.naming import ROOT
from distill.options import option

SENTENCES = ("a warm and clever film that earns its ending .", "the plot never wakes up and neither did i .")


@dataclass
class DemoArgs:
    """Distil a small pretrained BERT into a BiLSTM."""

    data_dir: str | None = option(None, "folder with SST-2; without it the project's own generated reviews")
    output_dir: str = option(str(ROOT / "runs" / "demo"), "where everything is written")


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(DemoArgs, argv, __doc__)
    started, folder = time.monotonic(), Path(args.output_dir) / ("sst2" if args.data_dir else "generated")
    runtime.start()
    from distill.data.demo import write_demo_data
    from distill_lstm import bert_distill, small
    from glue import run_glue
    from tools.predict import classify

    unlabelled: list[str] = []
    if args.data_dir:
        data_dir = args.data_dir
        teacher_flags, alone_flags, distil_flags = (
            ["--num_train_epochs", "1"],
            ["--max_epoch", "3"],
            ["--max_epoch", "3", "--n_iter", "1"],
        )
    else:
        paths = write_demo_data(folder / "data")
        data_dir, unlabelled = str(folder / "data"), ["--unlabelled_file", str(paths["unlabelled"])]
        teacher_flags, alone_flags, distil_flags = (
            ["--num_train_epochs", "4"],
            ["--max_epoch", "30"],
            ["--max_epoch", "4", "--n_iter", "4"],
        )

    def flags(name: str, *more: str) -> list[str]:
        return ["--task_name", "SST-2", "--data_dir", data_dir, "--output_dir", str(folder / name), *more]

    title("1/4  the teacher: all-MiniLM-L6-v2 (BERT, 6 layers), fine-tuned on the labelled rows")
    teacher = run_glue.main(
        flags("teacher", "--model_name_or_path", "all-MiniLM-L6-v2", "--learning_rate", "5e-5", *teacher_flags)
    )
    lstm = [
        "--optimizer",
        "adam",
        "--lr",
        "1e-3",
        "--scheduler",
        "linear",
        "--dropout_prob",
        "0.3",
        "--batch_size",
        "64",
    ]
    title("2/4  the student alone: a BiLSTM on the labelled rows")
    alone = small.main(flags("alone", "--model_name", str(teacher), *lstm, *alone_flags))
    title(
        "3/4  the student distilled: the same BiLSTM taught by the teacher"
        + (", on unlabelled rows too" if unlabelled else "")
    )
    lstm += ["--teacher_path", str(teacher), "--cache_dir", str(folder / "cache"), "--use_pretrained_emb", "true"]
    distilled = bert_distill.main(flags("distilled", *lstm, *distil_flags, *unlabelled))

    title("4/4  the three beside each other")
    models = {"teacher: MiniLM, 6 layers": teacher, "BiLSTM alone": alone, "BiLSTM distilled": distilled}
    results = {name: read_json(path / "results_eval.json") for name, path in models.items()}
    written = table(results)
    print(written)
    source = (
        "SST-2"
        if args.data_dir
        else "generated review sentences (made by this project; scores say nothing about real reviews)"
    )
    write_atomic(folder / "table.md", f"Data: {source}. Dev rows: {results['BiLSTM alone']['rows']}.\n\n{written}\n")
    chart(results, folder / "chart.png", source)
    print("\nthe distilled student reads:\n" + "\n".join(classify(str(distilled), SENTENCES)))
    print(f"\ntable and chart: {folder / 'table.md'}, {folder / 'chart.png'}")
    print(f"curves:          visualdl --logdir {folder}")
    print(f'classify:        python tools/predict.py {distilled} "your sentence"')
    print(f"total:           {time.monotonic() - started:.0f} s on {runtime.hardware()['cores']} cores")


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown: score, parameters, size, latency and speed-up of each model; the first is the reference."""
    reference = next(iter(results.values()))["latency_ms"]["p50"]
    lines = ["| model | dev accuracy | parameters | on disk | ms a sentence | speed-up |", "|---|---|---|---|---|---|"]
    for name, r in results.items():
        ms = r["latency_ms"]["p50"]
        cells = (
            name,
            f"{r['accuracy']:.3f}",
            f"{r['parameters'] / 1e6:.1f} M",
            r["modelSize"],
            f"{ms:.2f}",
            f"{reference / ms:.1f}x",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chart(results: dict[str, dict[str, Any]], path: Path, source: str) -> None:
    """A PNG of score against latency, one point a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=150)
    for name, r in results.items():
        x, y = r["latency_ms"]["p50"], r["accuracy"]
        axes.scatter(x, y, s=60)
        axes.annotate(
            f"{name}\n{y:.3f}, {r['parameters'] / 1e6:.1f} M parameters",
            (x, y),
            textcoords="offset points",
            xytext=(8, -4),
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.margins(x=0.35, y=0.25)
    axes.set(
        xlabel="milliseconds a sentence, one at a time (log scale)",
        ylabel="dev accuracy",
        title="Score against latency",
    )
    figure.text(0.01, 0.01, f"Data: {source}", fontsize=6)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary)
    plt.close(figure)
    temporary.replace(path)


if __name__ == "__main__":
    run(main)
