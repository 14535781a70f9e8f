"""The demo's table, on made-up results; the whole demo is `make demo`."""

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


def test_the_sentences_to_classify_are_not_in_the_generated_data(tmp_path):
    from distill.data.demo import write_demo_data

    texts = "".join(path.read_text(encoding="utf-8") for path in write_demo_data(tmp_path).values())
    assert not any(sentence in texts for sentence in SENTENCES)
