"""The page of a run: all that is in its folder, as text, in one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from harness import tags
from left import FINE_TUNED, RESULTS, leave, recorded, report, task_results

from distil.errors import DataError
from distil.exhibit import Exhibit
from distil.report.page import PAGE, make, page
from distil.report.tables import OUTDATED

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Parts(HTMLParser):
    """Elements with their attributes, all attributes' values and all text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.inline, self._inside = [], [], {}, ""
        self.feed(text)
        self.close()
        self.words = " ".join([*self.text, *(v or "" for _, attributes in self.elements for v in attributes.values())])

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside in ("script", "style"):
            self.inline[self._inside] = data
        else:
            self.text.append(data)

    def of(self, *names):
        return [attributes for tag, attributes in self.elements if tag in names]


def test_all_of_a_real_run_is_there(real_run, real_page):
    parts = Parts(real_page)
    found = tags(real_run)
    assert len(found) > 20 and {tag for tag in found if tag not in parts.words} == set()
    for row in json.loads((real_run / "results.json").read_text())["rows"]:
        assert row["name"] in parts.text and f"{100 * row['accuracy']:.1f} %" in parts.text
    assert "Finished at step 48" in parts.text and "Unfinished" not in parts.words
    assert re.search(r"A DistilBERT of 2 layers and [\d.]+.M parameters, begun as layers 0, 2 of ", parts.words)
    for setting in (
        "mlm_smoothing",
        "tokens are drawn in proportion to count^-smoothing",
        "fp32",
        "ds_config/zero1.json",
    ):
        assert setting in parts.words
    assert parts.words.index("Guesses") < parts.words.index("GLUE, medians of 3 seeds")  # by the files' names
    assert f"launch/evaluate.py suite --model {real_run}/student" in parts.words


def test_it_asks_for_nothing_and_may_not(real_page):
    parts = Parts(real_page)
    assert re.findall(r"https?:|//\w|@import|url\(", real_page) == []
    links = [a[name] for _, a in parts.elements for name in ("src", "href", "srcset", "data", "action") if name in a]
    assert len(links) == 1 and links[0].startswith("data:image/png;base64,")
    policy = next(a["content"] for a in parts.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("script", "style"):  # the policy lets in the page's own and no other
        digest = base64.b64encode(hashlib.sha256(parts.inline[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
        assert len(parts.of(kind)) == 1


def test_it_has_headings_in_order_and_every_chart_and_image_in_words(real_page):
    parts = Parts(real_page)
    levels = [int(tag[1]) for tag, _ in parts.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) <= 1
    assert len(parts.of("svg")) > 10 and all(a["role"] == "img" and "step" in a["aria-label"] for a in parts.of("svg"))
    assert all(a["alt"] for a in parts.of("img")) and parts.of("html")[0]["lang"] == "en"
    assert "width=device-width" in str(parts.of("meta"))


def hostile_run(folder):
    """A run whose every text would like to be markup."""
    mathematics = {"model": {"teacher": HOSTILE, HOSTILE: HOSTILE}, HOSTILE: {HOSTILE: [HOSTILE]}}
    results = RESULTS | {"rows": [*RESULTS["rows"], {"name": HOSTILE, HOSTILE: HOSTILE}], HOSTILE: {HOSTILE: HOSTILE}}
    run = leave(folder, {"recipe": HOSTILE, "mathematics": mathematics, HOSTILE: HOSTILE}, results)
    scalars = {HOSTILE: float, f"loss_weighted/{HOSTILE}": float, f"x/{HOSTILE}": lambda step: 1.0}
    texts = {
        "plan": f"  {HOSTILE:<60}{HOSTILE}\n  text            {HOSTILE}",
        HOSTILE: HOSTILE,
        "versions": {HOSTILE: HOSTILE},
    }
    report(run, range(1, 4), scalars, texts)
    Exhibit(
        title=HOSTILE, note=HOSTILE, columns=("", HOSTILE), rows=((HOSTILE, HOSTILE),), command=HOSTILE
    ).write(run, "x")  # fmt: skip
    return run


def test_what_comes_from_files_is_text(tmp_path):
    parts = Parts(make(hostile_run(tmp_path)).read_text())
    assert len(parts.of("script")) == 1 and parts.of("img") == []
    assert "alert" not in parts.inline["script"]
    assert all(not name.startswith("on") and name != "style" for _, a in parts.elements for name in a)
    assert HOSTILE in parts.text and parts.words.count(HOSTILE) > 15


def test_a_long_run_has_a_small_page_and_keeps_its_spike():
    rng = np.random.default_rng(0)
    curves = {f"loss/{i}": rng.normal(size=100_000) + 5 for i in range(25)}
    curves["loss/total"] = np.where(np.arange(100_000) == 77_777, 9876.5, curves["loss/0"])
    text = page(recorded(curves))
    assert len(text.encode()) < 2_000_000
    assert "step 100 k" in text and re.search(r"between \S+ and 9,87[67]\.", text)


def test_a_damaged_event_file_is_told(tmp_path):
    run = report(leave(tmp_path), range(1, 21), {"loss/total": float})
    file = next((run / "tensorboard").glob("events*"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    line = f"tensorboard/{file.name} is damaged: curves lack what it has after that."
    assert line in Parts(make(run).read_text()).text
    file.write_bytes(bytes(data[:1]) + b"x" + bytes(data[2:]))
    parts = Parts(make(run).read_text())
    assert line in parts.text and parts.of("svg") == []


def test_a_finished_run_without_evaluations_says_how_to_get_some(tmp_path):
    words = Parts(make(leave(tmp_path / "a run")).read_text()).words
    for name in ("guess", "speed"):
        assert f"launch/evaluate.py {name} --run '{tmp_path}/a run'" in words
    task_results().write(leave(tmp_path / "b", FINE_TUNED, results=None))
    words = Parts(make(tmp_path / "b").read_text()).words
    assert f"launch/evaluate.py speed --run {tmp_path}/b --teacher DIR_OR_NAME" in words and "guess" not in words
    assert "launch/evaluate.py" not in Parts(make(leave(tmp_path / "c", results=None)).read_text()).words


def test_an_evaluation_of_an_earlier_student_is_told(tmp_path):
    run = leave(tmp_path)
    paths = [Exhibit(title=name).write(run, name) for name in ("earlier", "later")]
    assert OUTDATED not in make(run).read_text()
    os.utime(paths[0], (1, 1))
    assert Parts(make(run).read_text()).text.count(OUTDATED) == 1


def test_what_is_missing_is_said(tmp_path):
    text = " ".join(Parts(make(leave(tmp_path, results=None)).read_text()).text)
    assert "Unfinished: it has not reported a step yet" in text
    assert "None yet: the model is measured when its training is done." in text
    assert "No curves: there are no event files" in text


def test_an_interrupted_run_has_its_curves_up_to_there(tmp_path):
    run = report(leave(tmp_path, results=None), range(1, 8), {"loss/total": float, "new/thing": float})
    parts = Parts(make(run).read_text())
    assert "Unfinished: at step 7 of 20" in parts.text
    assert len(parts.of("svg")) == 2 and "from 1 at step 1 to 7 at step 7" in parts.words


def test_another_kind_of_run_has_a_page_too(tmp_path):
    results = {"of": {"seed": 3}, "accuracy": 0.875, "confusion": [[1, 2], [3, 4]]}
    run = leave(tmp_path, {"kind": "other"}, results)
    scalars = {
        "loss/task": float,
        "validation/accuracy": lambda s: 0.01 * s,
        "validation/teacher_accuracy": lambda s: 0.9,
    }
    parts = Parts(make(report(run, range(1, 30), scalars, {})).read_text())
    assert {"87.5 %", "Task loss", "Accuracy", "of/seed", "[[1, 2], [3, 4]]"} <= {t.strip() for t in parts.text}
    assert "student: from 1.0 % at step 1 to 29.0 % at step 29" in parts.words and "teacher: from 90.0 %" in parts.words


def test_a_fine_tuning_has_its_table_and_its_numbers(tmp_path):
    run = leave(tmp_path, FINE_TUNED, results=None)
    task_results().write(run)
    parts = Parts(
        make(report(run, range(1, 21), {"loss/task": float, "test/accuracy": float, "score": float})).read_text()
    )
    cells = ["this model", "80.00", "85.00", "82.50", "90.0 %", "its teacher", "97.1 %", "paper: DistilBERT", "92.8"]
    assert {"imdb", "distil · report of a fine-tuning", *cells} <= set(parts.text)
    assert "Measured after step 20 on 50 examples of test; scores in percent." in parts.text
    assert {"[loss]", "alpha_task", "weight of the task's own loss, against the labels"} <= set(parts.text)
    (run / "results.json").write_text('{"step": 3}')
    with pytest.raises(DataError, match="remove it to measure again"):
        make(run)


def test_a_page_takes_the_place_of_an_earlier_one_whole_or_not_at_all(tmp_path):
    run = leave(tmp_path)
    (run / PAGE).write_text("earlier")
    (run / "results.json").write_text("{")
    with pytest.raises(DataError):
        make(run)
    assert (run / PAGE).read_text() == "earlier"
    leave(run)
    assert make(run) == run / PAGE and (run / PAGE).read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in run.iterdir()) == [PAGE, "results.json", "run.json"]
