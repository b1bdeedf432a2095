"""A measurement in a process of its own, and the lock of what it may import beside the project's."""

import re
from pathlib import Path

from bench.child import measured

ROOT = Path(__file__).parents[2]


def test_a_measurement_is_its_json_or_says_why_there_is_none(tmp_path):
    (tmp_path / "found.json").write_text('{"fit": 1.5}')
    assert measured("json.tool", "--compact", str(tmp_path / "found.json")) == {"fit": 1.5}
    assert "unrecognized arguments" in measured("json.tool", "--wrong")


def test_patience_is_counted_in_cpu_seconds():
    assert measured("timeit", "-n1", "-r1", "while True: pass", patience=1) == "more than 1 CPU-seconds"
    error = measured("timeit", "-n1", "-r1", "-s", "import time", "time.sleep(2); 1 / 0", patience=1)
    assert "division by zero" in error  # it went on to its end: asleep it takes none


def test_the_peers_lock_has_only_what_the_project_has_not_and_each_by_its_hash():
    project, peers = (re.findall(r"^([a-z][\w.-]*)==", (ROOT / name).read_text(), re.MULTILINE) for name in
                      ("requirements.lock", "bench/peers.txt"))  # fmt: skip
    assert {"keras", "pytorch-lightning", "mlxtend", "numpy-ml"} <= set(peers)
    assert not set(peers) & set(project)
    text = (ROOT / "bench/peers.txt").read_text()
    assert len(re.findall(r"==\S+ (?:;.*)?\\\n    --hash=", text)) == len(peers) and "http" not in text
