"""`genai sample` with numbers of its own beside those of params.yaml."""

import json
import subprocess
import sys

import pytest

from tests import project


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Run the command in a project with a text generator, of an untrained network, that reads 4 steps."""
    root = tmp_path_factory.mktemp("project")
    project.finish(root, "n_gram", **project.N_GRAM)
    project.finish(root, "text_diffusion", **project.DIFFUSION)
    generator = project.DIFFUSION["generator"] | {"show": {}, "grade": {"n": 2}}
    (root / "params.yaml").write_text(json.dumps({"generators": {"text_diffusion": generator}}))

    def run(*arguments):
        command = [sys.executable, "-m", "genai", "sample", "text_diffusion", *arguments]
        environment = project.ENVIRONMENT | {"PYTHONPATH": str(project.HERE)}
        return subprocess.run(command, check=False, cwd=root, env=environment, capture_output=True, timeout=100)

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
