"""`python -m genai ui`: all pages for as long as it runs, nothing left when it ends or cannot start."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests

from genai import ui
from genai.core.config import UserError
from genai.tracking.store import Store, remember

HERE = Path(__file__).parent.parent


PORTS = ("PAGE_PORT", "MLFLOW_PORT", "PREFECT_PORT")


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("variable", ["PAGE_PORT", "MLFLOW_PORT", "PREFECT_PORT"])
def test_a_port_in_use_is_named_and_nothing_is_started(variable, tmp_path, monkeypatch):
    *others, taken = free_ports(4)
    for name, port in zip(PORTS, others, strict=True):
        monkeypatch.setenv(name, str(port))
    monkeypatch.setenv(variable, str(taken))
    line = f"port {taken}: .* make ui {variable}={taken + 1}"
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(UserError, match=line):
        ui.ui(tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_no_port_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_PORT", "70000")
    with pytest.raises(UserError, match="MLFLOW_PORT: '70000' should be a port"):
        ui.ui(tmp_path)


def test_two_pages_on_one_port_are_refused(tmp_path, monkeypatch):
    one, other = map(str, free_ports(2))
    for name, port in zip(PORTS, (one, other, one), strict=True):
        monkeypatch.setenv(name, port)
    line = f"PAGE_PORT is {one}, MLFLOW_PORT is {other}, PREFECT_PORT is {one}; each page needs a port of its own"
    with pytest.raises(UserError, match=line):
        ui.ui(tmp_path)


def test_a_server_that_cannot_start_ends_the_others(tmp_path, monkeypatch):
    ports = free_ports(3)
    for name, port in zip(PORTS, ports, strict=True):
        monkeypatch.setenv(name, str(port))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://store")
    with pytest.raises(UserError, match="MLflow's server ended with status"):
        ui.ui(tmp_path)
    assert all(is_free(port) for port in ports)


COMMAND = [sys.executable, "-c", "from pathlib import Path; from genai import ui; ui.ui(Path.cwd())"]


@contextmanager
def serving(folder, command=COMMAND):
    """The pages in a process of their own: the process, their addresses and their ports."""
    ports = free_ports(3)
    others = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "PAGE_", "MAKE"))}
    environment = others | dict(zip(PORTS, map(str, ports), strict=True)) | {"PYTHONPATH": str(HERE)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        assert all(f":{port}" in line for port, line in zip(ports, lines, strict=False)) and "Ctrl-C" in lines[3]
        yield process, [line.split()[1] for line in lines[:3]], ports
    finally:
        process.kill()
        process.wait()


def scripts(page):
    """The addresses of what a page loads and runs."""
    html = requests.get(page, headers={"Accept": "text/html"}).text
    return [urljoin(page, source) for source in re.findall(r'<script[^>]+src="([^"]+)"', html)]


def test_all_pages_show_what_is_in_this_folder_until_they_are_interrupted(tmp_path):
    store = Store(tmp_path)
    remember(tmp_path, experiment_id=store.experiment_id)  # as tracking does
    run = store.client.create_run(store.experiment_id, run_name="seen").info
    with serving(tmp_path) as (process, (results, *pages), ports):
        missing = requests.get(results)
        assert missing.status_code == 404 and "make pipeline" in missing.text
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / "index.html").write_text("<p>ä</p>", encoding="utf-8")
        shown = requests.get(results)
        assert shown.text == "<p>ä</p>" and shown.headers["Content-Type"] == "text/html; charset=utf-8"
        assert requests.get(results, headers={"Host": "evil.test"}).status_code == 403
        _, *ports = ports
        for page in pages:
            found = [requests.get(script) for script in scripts(page)]
            assert found and all(one.ok and "javascript" in one.headers["Content-Type"] for one in found)
        assert f"/experiments/{run.experiment_id}/runs" in pages[0] and "compareRunsMode=CHART" in pages[0]
        api = f"http://127.0.0.1:{ports[0]}/ajax-api/2.0/mlflow/runs/get?run_id={run.run_id}"
        assert requests.get(api).json()["run"]["info"]["run_name"] == "seen"
        assert requests.get(api, headers={"Host": "evil.test"}).status_code == 403
        runs = requests.post(f"http://127.0.0.1:{ports[1]}/api/flow_runs/filter", json={})
        assert runs.json() == [] and list((tmp_path / ".prefect").glob("*.db"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert all(is_free(port) for port in (*ports, int(results.split(":")[2].strip("/"))))


@pytest.mark.parametrize("starter", ["itself", "make"])
def test_killed_it_or_the_make_that_started_it_leaves_no_server(starter, tmp_path):
    (tmp_path / "Makefile").write_text(f"ui:\n\t@{sys.executable} -c '{COMMAND[2]}'\n")
    with serving(tmp_path, COMMAND if starter == "itself" else ["make", "ui"]) as (process, _, ports):
        assert not any(is_free(port) for port in ports)
        process.kill()
        deadline = time.monotonic() + 30
        while not all(is_free(port) for port in ports):
            assert time.monotonic() < deadline, "a server outlived it"
            time.sleep(0.1)
