"""`genai sample` with numbers of its own beside those of params.yaml."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from genai.commands import sample as command
from genai.core.config import UserError
from tests import project


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Run the command in a project with a text generator, of an untrained network, that reads 4 steps."""
    root = tmp_path_factory.mktemp("project")
    made = (project.DIFFUSION[key] for key in ("code", "model", "task", "settings", "description", "data"))
    project.train(root, "text_diffusion", *made, seed=0, steps=3)
    (root / "models" / "image_diffusion").mkdir()
    (root / "models" / "image_diffusion" / "config.json").write_text('{"experiment": {"train": {"threads": 1}}}')
    generators = {
        "text_diffusion": project.DIFFUSION["generator"] | {"show": {}, "grade": {"n": 2}},
        "image_diffusion": project.FLOW["generator"] | {"show": {}, "grade": {}},
    }
    (root / "params.yaml").write_text(json.dumps({"generators": generators}))

    def run(*arguments, by=subprocess.run, **options):
        command = [sys.executable, "-m", "genai", "sample", "text_diffusion", *arguments]
        environment = project.ENVIRONMENT | {"PYTHONPATH": str(project.HERE), "TERM": "xterm-256color", "COLUMNS": "80"}
        options = options or {"check": False, "capture_output": True, "timeout": 100}
        return by(command, cwd=root, env=environment, **options)

    run.root = root
    return run


def test_another_sampler_takes_the_numbers_of_params_yaml_that_it_reads(sample):
    prompt = ["--prompt", "if [[5]]: pass"]
    plain = sample(*prompt).stdout
    assert plain.startswith(b"if ") and plain.endswith(b": pass\n")
    assert sample(*prompt, "--sampler", "ancestral", "--steps", "4").stdout == plain  # params.yaml's
    around = ["--temperature", "0.5", "--top-p", "0.9", "--guidance", "2", "--block", "3", "--best-of", "2"]
    other = sample(*prompt, "--sampler", "threshold", "--threshold", "0.5", *around)
    assert other.returncode == 0, other.stderr
    assert other.stdout.startswith(b"if ") and other.stdout.endswith(b": pass\n") and other.stdout != plain


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--sampler", "threshold", "--steps", "9"],
         "sampling.steps: 9 should be left out: the sampler threshold reads threshold"),
        (["--entropy-bound", "2"], "sampling.entropy_bound: 2.0 should be left out: the sampler ancestral reads steps"),
        (["--sampler", "ddim"], "sampling.sampler: 'ddim' should be 'ancestral', "),
        (["--top-p", "0"], "sampling.top_p: 0.0 should be greater than 0"),
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_one_line(sample, arguments, line):
    done = sample(*arguments)
    assert done.returncode == 2 and done.stderr.decode().count("\n") == 1 and line in done.stderr.decode()


@pytest.fixture
def here(sample, monkeypatch, capsys):
    """Run the command in this process, without a terminal; return what it prints."""
    monkeypatch.chdir(sample.root)
    monkeypatch.setattr(command, "limit_threads", lambda threads: None)

    def run(model="text_diffusion", watch=True, out=None, **changes):
        command.main(model, None, watch, out, **changes)
        return capsys.readouterr().out

    return run


def test_watched_without_a_terminal_a_text_is_printed_plain_or_written(here, tmp_path):
    plain = here(watch=False)
    assert here() == plain and "\x1b" not in plain
    assert here(out=str(tmp_path / "text.txt")) == f"{tmp_path}/text.txt\n"
    assert (tmp_path / "text.txt").read_text(encoding="utf-8") == plain


def test_what_cannot_be_watched_is_refused(here):
    with pytest.raises(UserError, match=r"^sampling\.best_of: 2 should be 1 with --watch"):
        here(best_of=2)
    with pytest.raises(UserError, match="^--watch: image_diffusion draws images; only a text is watched"):
        here("image_diffusion")


def test_in_a_terminal_it_is_written_in_place_and_stopped_without_a_trace(sample):
    ours, theirs = pty.openpty()
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a shell's background ignores it
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = sample("--watch", "--steps", "20", by=subprocess.Popen, **streams, **heard)
    os.close(theirs)
    seen = stopped = b""
    with contextlib.suppress(OSError):  # the end of it
        while more := os.read(ours, 65536):
            seen += more
            if not stopped and (stopped := re.search(rb"[34] of \d+ evaluations", seen)):
                process.send_signal(signal.SIGINT)
    os.close(ours)
    assert process.wait() == 130 and stopped
    assert "·".encode() in seen and b"\x1b[2K" in seen and b"Traceback" not in seen
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1  # the cursor, hidden and shown again


def test_a_moment_hides_what_is_to_come_keeps_its_width_and_lets_no_code_through():
    trace = {"tokens": ["The", " file\n", " \x1b[31mis"], "given": [True, False, False], "evaluations": 12}
    trace["events"] = [[1, 1, 0.001], [12, 2, 0.99]]
    texts = [command.frame(trace, n) for n in (0, 1, 12)]
    assert [text.plain.partition("\n\n")[0] for text in texts] == [
        "The ····\n  ······", "The file\n  ······", "The file\n  [31mis",
    ]  # fmt: skip
    assert [text.plain.partition("\n\n")[2] for text in texts] == [
        f"{n} of 12 evaluations  unsure ■■■■■■ sure" for n in (" 0", " 1", "12")
    ]
    assert "unsure" not in command.frame(trace, 1, coloured=False).plain
    styles = {text.plain[span.start : span.end]: str(span.style) for text in texts[1:] for span in text.spans}
    assert styles[" file\n"] == command.COLOURS[0] and styles["  [31mis"] == command.COLOURS[-1]
