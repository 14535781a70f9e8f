"""The demo's table, on made-up results; the whole demo is `make demo`."""

import pytest

from distill.cli import parse
from distill_lstm import bert_distill, small
from distill_lstm.args import DistillArgs, StudentArgs
from glue import run_glue
from glue.args import GlueArgs
from tools import demo
from tools.demo import SENTENCES, table

RESULTS = {
    "teacher": {"accuracy": 0.8925, "parameters": 22_700_000, "modelSize": "90.87 MB", "latency_ms": {"p50": 6.0}},
    "student": {"accuracy": 0.875, "parameters": 10_800_000, "modelSize": "43.10 MB", "latency_ms": {"p50": 0.4}},
}


def test_table():
    assert table(RESULTS).splitlines() == [
        "| model | dev accuracy | parameters | on disk | ms a sentence | speed-up |",
        "|---|---|---|---|---|---|",
        "| teacher | 0.892 | 22.7 M | 90.87 MB | 6.00 | 1.0x |",
        "| student | 0.875 | 10.8 M | 43.10 MB | 0.40 | 15.0x |",
    ]


@pytest.mark.parametrize("flags", [(), ("--data_dir", "glue_data")])
def test_its_flags_are_those_of_the_recipes(flags, tmp_path, monkeypatch):
    class Enough(Exception):
        pass

    seen = []

    def parsing(args):
        def main(argv):
            seen.append(parse(args, argv))
            if args is DistillArgs:
                raise Enough
            return tmp_path / args.__name__

        return main

    monkeypatch.setattr(run_glue, "main", parsing(GlueArgs))
    monkeypatch.setattr(small, "main", parsing(StudentArgs))
    monkeypatch.setattr(bert_distill, "main", parsing(DistillArgs))
    with pytest.raises(Enough):
        demo.main([*flags, "--output_dir", str(tmp_path)])
    teacher, alone, taught = seen
    assert alone.model_name == taught.teacher_path == str(tmp_path / "GlueArgs")
    assert {args.task_name for args in seen} == {"SST-2"} and len({args.data_dir for args in seen}) == 1
    assert len({args.output_dir for args in seen}) == 3 and not any(args.overwrite for args in seen)
    assert (teacher.data_dir == "glue_data") == bool(flags) == (taught.unlabelled_file is None)


def test_the_sentences_to_classify_are_not_in_the_generated_data(tmp_path):
    from distill.data.demo import write_demo_data

    texts = "".join(path.read_text(encoding="utf-8") for path in write_demo_data(tmp_path).values())
    assert not any(sentence in texts for sentence in SENTENCES)
