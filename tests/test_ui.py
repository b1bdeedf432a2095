"""`python -m genai ui`: both pages for as long as it runs, nothing left when it ends or cannot start."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from genai import ui
from genai.core.config import UserError

HERE = Path(__file__).parent.parent


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("variable", ["MLFLOW_PORT", "PREFECT_PORT"])
def test_a_port_in_use_is_named_and_nothing_is_started(variable, tmp_path, monkeypatch):
    other, taken = free_ports(2)
    monkeypatch.setenv("MLFLOW_PORT", str(other))
    monkeypatch.setenv("PREFECT_PORT", str(other + 1))
    monkeypatch.setenv(variable, str(taken))
    line = f"port {taken}: .* make ui {variable}={taken + 1}"
    with socket.create_server(("127.0.0.1", taken)), pytest.raises(UserError, match=line):
        ui.ui(tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_is_no_port_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_PORT", "70000")
    with pytest.raises(UserError, match="MLFLOW_PORT: '70000' should be a port"):
        ui.ui(tmp_path)


def test_a_server_that_cannot_start_ends_the_other(tmp_path, monkeypatch):
    ports = free_ports(2)
    monkeypatch.setenv("MLFLOW_PORT", str(ports[0]))
    monkeypatch.setenv("PREFECT_PORT", str(ports[1]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://store")
    with pytest.raises(UserError, match="MLflow's server ended with status"):
        ui.ui(tmp_path)
    assert all(is_free(port) for port in ports)


def test_both_pages_answer_until_it_is_interrupted(tmp_path):
    ports = free_ports(2)
    environment = os.environ | {"MLFLOW_PORT": str(ports[0]), "PREFECT_PORT": str(ports[1]), "PYTHONPATH": str(HERE)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", "from pathlib import Path; from genai import ui; ui.ui(Path.cwd())"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert f":{ports[0]}" in lines[0] and f":{ports[1]}" in lines[1] and "Ctrl-C" in lines[2]
        for line in lines[:2]:
            page = requests.get(line.split()[1], headers={"Accept": "text/html"})
            assert page.status_code == 200 and "<html" in page.text.lower()
        assert requests.get(f"http://127.0.0.1:{ports[0]}/health", headers={"Host": "elsewhere"}).status_code == 200
        hostile = requests.get(
            f"http://127.0.0.1:{ports[0]}/ajax-api/2.0/mlflow/experiments/search", headers={"Host": "evil.test"}
        )
        assert hostile.status_code == 403
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert all(is_free(port) for port in ports)
