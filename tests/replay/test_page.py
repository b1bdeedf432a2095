"""The replay is one file in which no text of a model is markup."""

import json
import re

from genai.replay import page
from tests.test_page import Elements

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(1)> &amp;"
TRACE = {"tokens": ["a", HOSTILE], "given": [False, False], "evaluations": 2, "events": [[1, 1, 0.5], [2, 0, 0.25]]}
REPLAY = {"name": "m", "traces": [TRACE | {"prompt": HOSTILE, "way": "threshold"}]}


def test_a_text_in_a_page_is_data_whatever_it_holds(tmp_path):
    page.write([REPLAY], tmp_path / "replay.html")
    text = (tmp_path / "replay.html").read_text(encoding="utf-8")
    elements = Elements(text)
    assert not elements.open and [tag for tag, _ in elements.found].count("script") == 2 and "alert(1)" in text
    assert not any(tag == "img" or any(key.startswith("on") for key in a) for tag, a in elements.found)
    data = re.search(r'<script type="application/json" id="replay-data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(data)["replays"] == [REPLAY] and "<" not in data


def test_the_script_sets_text_and_class_alone_and_asks_for_nothing():
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "fetch", "import", "http", "eval("):
        assert forbidden not in page.SCRIPT
    for text in (page.STYLE, page.PAGE, page.MARKUP):
        assert "url(" not in text and "@import" not in text and "http" not in text


def test_every_class_that_the_script_looks_for_is_in_the_markup():
    for name in {*re.findall(r'find\("\.([a-z]+)"\)', page.SCRIPT), "prompt", "colour", "play", "slider"}:
        assert re.search(rf'class="{name}"', page.MARKUP), name


def test_what_a_generator_recorded_is_read_or_nothing(tmp_path):
    assert page.read(tmp_path) is None
    (tmp_path / page.RECORDED).write_text(json.dumps(REPLAY))
    assert page.read(tmp_path) == REPLAY
