"""`python -m genai serve`: a champion behind a password, with bounded requests."""

import asyncio
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import requests

from genai import model, tracking
from genai.core.config import UserError
from genai.tracking import door, serve
from tests import project
from tests.tracking.conftest import clean

PASSWORD = "a password of the test"
KEY = ("genai", PASSWORD)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The command as a user types it, in a project whose champion it serves: the project's folder and the address."""
    root = tmp_path_factory.mktemp("project")
    project.finish(root, "cnn", **project.CNN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        clean(patch)
        tracking.release(root, None)
        # another model's code in this folder is not what answers
        (root / "genai").mkdir()
        (root / "genai" / "__init__.py").write_text("raise SystemExit('the code of this folder, not of the model')")
        free = serve.socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        environment |= {"GENAI_SERVE_PASSWORD": PASSWORD, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
        # of the repository, while the current folder is the project's
        program = (
            f"import sys; sys.path.insert(0, {str(project.HERE)!r}); from genai.__main__ import main; sys.exit(main())"
        )
        command = [sys.executable, "-P", "-c", program, "serve", "cnn", "--port", str(port)]
        with open(root / "log", "w") as log:
            process = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    requests.get(f"http://127.0.0.1:{port}/ping", timeout=5)
                    break
                except requests.ConnectionError:
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(0.2)
                        pytest.fail((root / "log").read_text())
            yield root, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def test_the_model_answers_who_has_the_password(served):
    root, address = served
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    answer = requests.post(f"{address}/invocations", json={"inputs": x.tolist()}, auth=KEY, timeout=60)
    assert answer.status_code == 200, answer.text
    probabilities = [list(row.values()) for row in answer.json()["predictions"]]
    expected = model.load(root / "models" / "cnn").apply("predict_proba", x)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert "user genai" in (root / "log").read_text()


@pytest.mark.parametrize("key", [None, ("genai", "wrong"), ("nobody", PASSWORD), ("genai", "")])
@pytest.mark.parametrize("path", ["invocations", "ping", "health", "version", "docs", "openapi.json"])
def test_whoever_has_no_password_is_answered_401(key, path, served):
    _, address = served
    for method in ("GET", "POST"):
        answer = requests.request(method, f"{address}/{path}", auth=key, json={"inputs": []}, timeout=10)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_a_request_that_is_too_large_is_answered_413_whether_it_says_so_or_not(served):
    _, address = served
    part = b" " * 1024**2

    def parts():
        for _ in range(door.MAX_BYTES // len(part) + 1):
            yield part

    announced = {"Content-Length": str(door.MAX_BYTES + 1)}
    early = requests.Request("POST", f"{address}/invocations", auth=KEY, headers=announced).prepare()
    early.headers.update(announced)  # and nothing of it is sent
    assert requests.Session().send(early, timeout=10).status_code == 413
    assert requests.post(f"{address}/invocations", data=parts(), auth=KEY, timeout=60).status_code == 413
    answer = requests.post(f"{address}/invocations", data=b" " * door.MAX_BYTES, auth=KEY, timeout=60)
    assert answer.status_code not in (200, 401, 413)  # it reached the model's server, which finds nothing in it


def test_a_request_that_does_not_arrive_is_answered_408(monkeypatch):
    monkeypatch.setattr(door, "SECONDS", 0.05)
    sent = []

    async def never():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    def app(*_):
        pytest.fail("it reached the model")

    guarded = door.Door(app, PASSWORD)
    asyncio.run(guarded({"type": "http", "headers": [(b"authorization", guarded.key)]}, never, send))
    assert sent[0]["status"] == 408


def test_what_cannot_be_served_ends_in_one_line(served, monkeypatch):
    root, address = served
    monkeypatch.chdir(root)
    clean(monkeypatch)
    port = int(address.rsplit(":", 1)[1])
    monkeypatch.delenv("GENAI_SERVE_PASSWORD", raising=False)
    with pytest.raises(UserError, match="GENAI_SERVE_PASSWORD: of 0 characters, should be of 12 or more"):
        serve.serve(root, "cnn", "127.0.0.1", port)
    monkeypatch.setenv("GENAI_SERVE_PASSWORD", PASSWORD)
    with pytest.raises(UserError, match=re.escape(f"127.0.0.1:{port}: Address already in use")):
        serve.serve(root, "cnn", "127.0.0.1", port)
    with pytest.raises(UserError, match="127.0.0.1:70000: should be 1 to 65535"):
        serve.serve(root, "cnn", "127.0.0.1", 70000)
    with pytest.raises(UserError, match="models:/nosuch@champion: .*not found"):
        serve.serve(root, "nosuch", "127.0.0.1", port)
