"""The report of a comparison from made-up predictions: what it says, what it escapes, and how a browser shows it."""

import base64
import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from distill.data.readers import Rows
from distill.data.tasks import get_task
from distill.evaluation.predictions import Predictions
from tools import compare
from tools.comparison import analysis as analysing
from tools.comparison import measure, students
from tools.comparison.board import write_board
from tools.comparison.measure import Student, choose, verdict
from tools.comparison.plan import Recipe
from tools.comparison.report import write_report

LABELS = ("KD", "BiLSTM", "TinyBERT")
HOSTILE = '<img src="http://example.org/x.png" onerror="document.title=1">&amp;<script>document.title="hacked"</script>'
LONG = "w" * 400  # without a place to break


def made_up(rows=240, seed=0):
    """(result, analysis, rows, task): a teacher that is right on 90 % of MRPC-like rows, and three weaker students."""
    rng, task = np.random.default_rng(seed), get_task("MRPC")
    labels = rng.integers(0, 2, rows)
    words = np.array("the a film plot is was not good bad dull warm of and".split())
    text_a = [" ".join(rng.choice(words, rng.integers(3, 30))) for _ in range(rows)]
    text_b = [" ".join(rng.choice(words, rng.integers(3, 30))) for _ in range(rows)]
    text_a[0], text_b[0], labels[0] = HOSTILE, LONG, 1
    texts = Rows(text_a, text_b, labels, "made up")

    def model(right, noise, sharpness):
        """Logits whose margin is small where they are wrong."""
        correct = noise < right
        margin = sharpness * np.where(correct, 0.5 + 2 * rng.random(rows), 0.2 + rng.random(rows))
        answer = np.where(correct, labels, 1 - labels)
        return (np.eye(2)[answer] * margin[:, None]).astype(np.float32)

    common = rng.random(rows)
    common[0] = 0.88  # the first row: the teacher knows it, no student does
    teacher = Predictions(model(0.9, common, 2.0), labels)
    students = []
    for number, label in enumerate(LABELS):
        of = [Predictions(model(0.85 - 0.06 * number, common, 3.0), labels) for _ in range(2)]
        alone = [Predictions(model(0.8 - 0.06 * number, common, 3.0), labels) for _ in range(2)]
        recipe = Recipe(label.lower(), label, Path("none"), {}, False, 1)
        students.append(Student(recipe, Path("out") / label.lower(), of, alone))
    return teacher, students, texts, task


def row_of(student, teacher, number, task):
    """As measure.table_rows, without folders to read."""
    from distill.evaluation.statistics import paired_bootstrap

    control = paired_bootstrap(student.distilled, student.alone, task)
    return {
        "label": student.recipe.label, "method": student.recipe.name, "folder": str(student.folder),
        "score": measure.score_of(student.distilled, task),
        "to_teacher": measure.difference_of(paired_bootstrap(student.distilled, [teacher], task)),
        "control": measure.difference_of(control)
        | {"verdict": control.verdict, "score": measure.score_of(student.alone, task)},
        "agreement": measure.agreement(student.distilled[0].logits, teacher.logits),
        "parameters": 10_000_000 - 2_000_000 * number, "bytes": 40_000_000 - 8_000_000 * number,
        "layers": 3 - number, "hidden": 384, "feed_forward": 1536,
        "latency_ms": {"p50": 3.0 - number, "p95": 4.5 - number, "p99": 5.0, "mean": 3.0}, "samples_per_second": 900.0,
        "steps": 1200 + number, "training_minutes": 10.04, "control_minutes": 9.0, "minutes_in_all": 41.0,
        "seconds": {"student": 600.0},
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(result, analysis, the report's path, its pictures)."""
    teacher, found, texts, task = made_up()
    rows = [row_of(student, teacher, number, task) for number, student in enumerate(found)]
    measure.mark(rows, found, task)
    first = {
        "label": "teacher", "folder": "t", "score": measure.score_of([teacher], task), "parameters": 22_713_986,
        "bytes": 90_860_000, "layers": 6, "hidden": 384, "feed_forward": 1536, "samples_per_second": 400.0,
        "latency_ms": {"p50": 6.0, "p95": 8.0, "p99": 9.0, "mean": 6.0},
    }  # fmt: skip
    choice = choose(rows, {"max_p95_ms": 4.0, "max_drop": 12.0})
    choice["said"] = verdict(choice)
    result = {
        "teacher": first, "students": rows, "choice": choice, "command": "python tools/compare.py --teacher t",
        "plan": {
            "minutes": 120.0, "each": 10.0, "steps": None, "methods": 3, "seeds": 2, "warm_up": 50, "rounds": 3,
            "left_out": {"pkd": "its students have at least 2 layers"},
            "of_pairs": [], "pair_teacher": None,
        },
        **measure.facts(task, len(texts)),
    }  # fmt: skip
    analysed = analysing.analyse(found, teacher, texts, task, 0.02)
    path = tmp_path_factory.mktemp("report") / "compare.html"
    return result, analysed, path, write_report(result, analysed, path)


# What is said


def test_the_markdown(made):
    lines = students.markdown(made[0]).splitlines()
    assert lines[0].startswith("| model | layers | parameters | MB | dev accuracy | less teacher | less labels alone |")
    assert len(lines[0].split("|")) == len(lines[1].split("|")) == len(lines[2].split("|")) == 14
    assert lines[2].startswith("| teacher | 6 | 22.7 M | 90.9 | 89.6 (") and lines[2].endswith("| 6.00 | 8.00 |  |  |")
    assert re.search(
        r"^\| KD \| 3 \| 10 M \| 40 \| \*\*8\d\.\d\*\* \(7.* \| 3.00 \| 4.50 \| 1,200 \| 10.0 \|$", lines[3]
    )
    assert "a budget of 120 minutes gives each of 3 methods, 2 seed(s) and 2 arms 10.0 minutes" in lines[7]
    assert lines[-1] == "*Left out: pkd (its students have at least 2 layers).*"
    chinese = students.markdown(made[0], "zh").splitlines()
    assert chinese[2].startswith("| 教师 |") and len(chinese) == len(lines)


def test_equal_steps_are_called_so(made):
    result = made[0] | {"plan": made[0]["plan"] | {"minutes": None, "steps": 7, "left_out": {}}}
    lines = students.explanations(result)
    assert "95 % interval over rows and seeds, bootstrap" in lines[1]
    alone = students.explanations(result | {"plan": result["plan"] | {"seeds": 1}, "rows": 872})
    assert "95 % interval over rows; one seed says nothing about others, bootstrap" in alone[1]
    assert "the same 200 rows" in alone[3] and "Scores on 872 dev rows" in alone[1]
    assert lines[0].startswith(
        "Equal steps: every student and its control arm were trained for 7 steps, those of stages"
    )
    assert len(lines) == 4


def test_the_numbers(made):
    rows = list(csv.DictReader(io.StringIO(students.comma_separated(made[0]))))
    assert [row["model"] for row in rows] == ["teacher", *LABELS]
    assert rows[0]["less_teacher"] == "" and rows[1]["mark"] == "best" and rows[1]["steps"] == "1200"
    for row, of in zip(rows[1:], made[0]["students"], strict=True):
        assert float(row["score"]) - float(row["control"]) == pytest.approx(float(row["less_control"]))
        assert (
            float(row["low"]) <= float(row["score"]) <= float(row["high"])
            and float(row["p95_ms"]) == (of["latency_ms"]["p95"])
        )


def test_a_json_is_written_out_again(made, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(made[0]))
    compare.main([str(tmp_path / "c.json")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.csv", "c.json", "c.md"]
    assert (tmp_path / "c.md").read_text(encoding="utf-8") == students.markdown(made[0]) + "\n"


# The choice


def student(label, p95, drop, mb):
    return {"label": label, "latency_ms": {"p95": p95}, "to_teacher": {"mean": -drop / 100}, "bytes": mb * 1e6}


BY_COST = [student("good", 9.0, 0.5, 60), student("small", 2.0, 3.0, 15), student("twin", 2.0, 2.0, 14)]


@pytest.mark.parametrize(
    ("limits", "chosen"),
    [
        ({"max_p95_ms": 10.0}, "twin"),  # as fast as `small`, and smaller
        ({"max_drop": 1.0}, "good"),
        ({"max_drop": 2.0, "max_mb": 14.0}, "twin"),  # a limit may be reached
        ({"max_drop": 0.2}, None),
        ({"max_drop": 1.0, "max_p95_ms": 5.0}, None),
    ],
)
def test_the_cheapest_that_fits(limits, chosen):
    assert choose(BY_COST, limits)["chosen"] == chosen


def test_which_limit_fails():
    lines = verdict(choose(BY_COST, {"max_drop": 0.2, "max_mb": 30.0}))
    assert lines[0] == "no student fits --max_drop 0.2, --max_mb 30 (--max_drop: no student keeps it)"
    assert lines[1] == "good breaks --max_drop 0.2: 0.5 points below the teacher; --max_mb 30: 60 MB"
    lines = verdict(choose(BY_COST, {"max_drop": 1.0, "max_p95_ms": 5.0}))
    assert lines[0].endswith("(each limit is kept, but not all by one)") and len(lines) == 4
    lines = verdict(choose(BY_COST, {"max_p95_ms": 5.0}))
    assert lines == [
        "chosen: twin, the cheapest student within --max_p95_ms 5",
        "good breaks --max_p95_ms 5: 9 ms p95",
    ]


# What is analysed


def test_flips(made):
    flips = made[1]["TinyBERT"]["flips"]
    assert flips["rows"] == 240 and flips["lost"] == len(flips["lost_rows"]) > 20
    assert set(flips["groups"]) == {"class", "length", "words in common"}
    for groups in flips["groups"].values():
        assert sum(g["rows"] for g in groups) == 240 and sum(g["lost"] for g in groups) == flips["lost"]
        assert all(g["low"] <= g["lost"] / g["rows"] <= g["high"] for g in groups)
    examples = flips["examples"]
    assert len(examples) == analysing.EXAMPLES
    assert all(example["student"] != example["label"] for example in examples)
    sure = [example["student_sure"] for example in examples]
    assert sure == sorted(sure, reverse=True) and {example["row"] for example in examples} <= set(flips["lost_rows"])
    assert 1 in made[1]["KD"]["flips"]["lost_rows"]


def test_rows_without_a_label_are_left_out_and_keep_their_numbers():
    teacher, found, texts, task = made_up()
    labels = teacher.labels.copy()
    labels[1:100] = -1
    teacher = Predictions(teacher.logits, labels)
    flips = analysing.analyse(found, teacher, texts, task, 0.02)["KD"]["flips"]
    assert flips["rows"] == 141 and flips["lost_rows"][0] == 1 and all(n > 100 for n in flips["lost_rows"][1:])


def test_calibration_and_cascade(made):
    """The students' logits are too far apart for how often they are right; asking the teacher mends their errors."""
    for found in made[1].values():
        calibration, cascade = found["calibration"], found["cascade"]
        assert calibration["after"]["error"] < calibration["before"]["error"] and calibration["temperature"] > 1
        assert sum(calibration["before"]["rows"]) == 240
        assert 0 < cascade["cascade_threshold"] < 1 and 0 < cascade["teacher_share"] < 1
        assert cascade["score"] >= cascade["scores"][-1] - 0.02 > cascade["scores"][0]
    json.dumps(made[1], allow_nan=False)


def test_the_threshold_is_written_for_a_bundle(made, tmp_path):
    folders = {label: f"out/{label.lower()}" for label in LABELS}
    analysing.write_cascades(made[1], folders, "t", get_task("MRPC"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bilstm.json", "kd.json", "tinybert.json"]
    found = json.loads((tmp_path / "kd.json").read_text())
    assert found["cascade_threshold"] == made[1]["KD"]["cascade"]["cascade_threshold"]
    assert (found["student"], found["teacher"], found["task"]) == ("out/kd", "t", "MRPC")


def test_agreement_is_the_share_of_equal_answers():
    """On the classes, not on the logits: the third row agrees whatever its size, the last does not."""
    student = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [-9.0, -1.0, -2.0], [1.0, 0.9, 0.0]])
    teacher = np.array([[9.0, 8.0, 7.0], [0.0, 0.1, 0.2], [0.0, 50.0, 0.0], [0.9, 1.0, 0.0]])
    assert measure.agreement(student, teacher) == 0.75


def test_regression_has_none_of_these():
    labels = np.linspace(0, 5, 10)
    teacher = Predictions(labels[:, None].astype(np.float32), labels)
    assert analysing.analyse([], teacher, Rows(["x"] * 10, ["y"] * 10, labels, ""), get_task("STS-B"), 0.01) == {}
    assert measure.agreement(teacher.logits, 2 * teacher.logits) == pytest.approx(1.0)
    assert measure.agreement(np.ones((10, 1)), teacher.logits) == 0.0


# The page


def test_what_belongs_together_stays_on_a_line(made):
    text = made[2].read_text(encoding="utf-8")
    assert '<span class="whole">--max_p95_ms 4</span>, <span class="whole">--max_drop 12</span>' in text
    assert "(95\u00a0% interval over rows" in text and not re.search(r"\d %", text)
    tie = students.student_cells(made[0]["students"][1] | {"mark": "tie"}, False)[4]
    assert re.fullmatch(r"\d\d\.\d ≈ \(\d\d\.\d to \d\d\.\d\)", tie)


def test_the_page_is_self_contained_and_texts_are_escaped(made):
    text = made[2].read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;" in text and "&lt;img src=&quot;http://example.org" in text
    assert not re.search(r"(src|href)=[\"'](?!data:)", text) and "@import" not in text and "url(" not in text
    for picture in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text):
        svg = base64.b64decode(picture).decode()
        assert "<svg" in svg and not re.search(r'(href|src)="(?!#)', svg)
    assert text.count('class="reliability"') == 3 and text.count('class="chart"') == text.count('class="cascade"') == 1


def test_the_page_of_a_regression_says_so(made, tmp_path):
    result = made[0] | {"task": "own", "metric": "pearson_spearman", "choice": None}
    pictures = write_report(result, {}, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    share, number = f"{100 * made[0]['students'][0]['agreement']:.1f}", f"{made[0]['students'][0]['agreement']:.3f}"
    assert f"<span>{number}</span>" in text and "Pearson&#x27;s correlation of its answers" in text
    shares = made[2].read_text(encoding="utf-8")
    assert f"<span>{share}\u00a0%</span>" in shares and "Pearson" not in shares
    assert (
        "The task asks for a score" in text
        and "<h1>Students of one teacher on your own data</h1>" in text
        and "Flips:" not in text
        and [p.name for p in pictures] == ["score_latency.png"]
    )


def test_pictures_and_the_board(made, tmp_path):
    from matplotlib import image
    from visualdl import LogReader

    names = ["score_latency", "cascade", *(f"reliability_{label.lower()}" for label in LABELS)]
    assert [path.stem for path in made[3]] == names
    for path in made[3]:
        pixels = image.imread(path)
        assert pixels.shape[1] > 700 and pixels[..., :3].std() > 0.02
    write_board(made[0], made[3], tmp_path / "vdl_log")
    write_board(made[0], made[3], tmp_path / "vdl_log")  # anew, not twice
    assert sorted(path.name for path in (tmp_path / "vdl_log").iterdir()) == ["bilstm", "kd", "report", "tinybert"]
    (log,) = (tmp_path / "vdl_log" / "report").iterdir()
    reader = LogReader(file_path=str(log))
    tags = reader.get_tags()
    assert set(tags["image"]) == {f"comparison/{name}" for name in names}
    students_said = [f"comparison/{name}" for name in ("teacher", "kd", "bilstm", "tinybert")]
    assert tags["text"] == [*students_said, *(f"notes/{number}" for number in range(1, 6))]
    text = reader.get_data("text", "comparison/kd")[0].text.encoded_text_string
    assert text.startswith("model: KD; layers: 3; parameters: 10 M; MB: 40; dev accuracy: 8") and "*" not in text
    (log,) = (tmp_path / "vdl_log" / "kd").iterdir()
    reader = LogReader(file_path=str(log))
    assert reader.get_data("scalar", "comparison/accuracy")[0].value == pytest.approx(
        made[0]["students"][0]["score"]["mean"]
    )


# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """
<script>
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((d) => { d.open = true });
  const box = (selector) => { const b = document.querySelector(selector).getBoundingClientRect(); return b };
  const inside = [...document.querySelectorAll("body *")].filter(
    (e) => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML);
  const images = [...document.querySelectorAll("img")];
  const found = {
    width: innerWidth, scroll: document.documentElement.scrollWidth, outside: inside, title: document.title,
    table: box("#students").height * box("#students").width, chart: box("img.chart").width,
    rows: [...document.querySelectorAll("#students tbody tr")].filter((r) => r.offsetHeight > 0).length,
    head: getComputedStyle(document.querySelector("#students thead")).display,
    images: images.length, drawn: images.filter((i) => i.complete && i.naturalWidth > 0).length,
    requests: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:")),
  };
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


@pytest.fixture(scope="module")
def browse(made, tmp_path_factory):
    """browse(width): what the page is like in a headless Chromium of that width."""
    if CHROMIUM is None:
        print("left out: no chromium is installed")
        pytest.skip("no chromium is installed (chromium, chromium-browser or google-chrome)")
    folder = tmp_path_factory.mktemp("browser")
    inner = folder / "page.html"
    inner.write_text(made[2].read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")

    def of(width):
        # In a frame of that width: a window of headless Chromium cannot be as narrow as a phone.
        outer = folder / f"{width}.html"
        outer.write_text(
            f'<body><iframe src="page.html" style="width:{width}px;height:4000px;border:0"></iframe><script>'
            'addEventListener("load", () => setTimeout(() => { document.body.append(Object.assign('
            'document.createElement("pre"), {id: "out", textContent: '
            'frames[0].document.querySelector("#probe").textContent})) }, 300))</script></body>'
        )
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000",
            "--window-size=1400,1000", "--dump-dom", outer.as_uri(),
        ]  # fmt: skip
        environment = os.environ | {"HOME": str(folder)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        match = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
        assert match, done.stderr[-2000:]
        import html

        return json.loads(html.unescape(match[1]))

    return of


@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_it(browse, width):
    seen = browse(width)
    assert seen["width"] == width and seen["scroll"] <= width and seen["outside"] == []
    assert seen["table"] > 0 and seen["rows"] == 4 and seen["chart"] > 250
    assert seen["head"] == ("none" if width < 700 else "table-header-group")
    assert seen["images"] == seen["drawn"] == 5 and seen["requests"] == []
    assert seen["title"] == "Students of one teacher on MRPC"  # the hostile text has not run
