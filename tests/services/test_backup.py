"""A backup of the databases and the store, restored into servers that are empty and have other secrets."""

import contextlib
import os
import shutil
import sys

import boto3
import mlflow
import psycopg2
import pytest
import requests
from botocore.config import Config

from services import team
from tests.services.conftest import ROOT, composed, free_port, libpq, new_mlflow, new_postgres, new_s3


def natively(env, postgres, s3):
    """What `team.inside` is on an engine: a command as a service of docker-compose.yml would run it."""
    mlflow_auth = {"MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "services" / "mlflow_auth.ini")}
    at = {name: postgres.environment[name] for name in ("PGHOST", "PGPORT")}
    environments = {
        "postgres": postgres.environment,
        "buckets": s3.environment,
        "mlflow": composed(env)["mlflow"]["environment"] | mlflow_auth | at,
    }
    here = {"python": sys.executable, "/services/store.py": str(ROOT / "services" / "store.py")}

    def inside(service, *command):
        told = [f"{name}={value}" for name, value in environments[service].items()]
        return ["env", *told, *(here.get(part, part) for part in command)]

    return inside


def objects(s3):
    names = {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
    keys = {keyword: s3.environment[name] for name, keyword in names.items()}
    path_style = Config(s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=s3.address, region_name="us-east-1", config=path_style, **keys)


def key(service):
    return tuple(service.environment[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD"))


def artifact(service, run_id):
    """A file of a run, by the server: the client keeps no storage key."""
    address = f"{service.address}/get-artifact?run_uuid={run_id}&path=note.txt"
    return requests.get(address, auth=key(service), timeout=20)


@pytest.mark.drill
def test_a_backup_is_restored_into_empty_servers_with_other_secrets(
    team_env, postgres, s3, mlflow_server, prefect_server, tmp_path, monkeypatch
):
    for name, value in mlflow_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in s3.environment:
        monkeypatch.delenv(name, raising=False)
    client = mlflow.MlflowClient(mlflow_server.address)
    run_id = client.create_run(client.create_experiment("kept")).info.run_id
    client.log_metric(run_id, "accuracy", 0.5)
    client.log_text(run_id, "kept", "note.txt")
    user, password = prefect_server.environment["PREFECT_API_AUTH_STRING"].split(":")
    pool = {"name": "kept", "type": "process"}
    requests.post(
        f"{prefect_server.address}/work_pools/", json=pool, auth=(user, password), timeout=20
    ).raise_for_status()
    large = os.urandom(20_000_000)  # in parts
    objects(s3).put_object(Bucket="genai-dvc", Key="files/md5/ab/c d", Body=large)

    folder = team.backup(tmp_path / "backups", natively(team_env, postgres, s3))
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.dump", "prefect.dump", "store.tar"]
    assert folder.stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [folder.name]

    fresh = team.values(team.filled((ROOT / ".env.example").read_text()))
    ports = {name: str(free_port()) for name in ("PREFECT_PORT", "MLFLOW_PORT", "SERVE_PORT")}
    other = fresh | ports | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['MLFLOW_PORT']}"}
    assert other["MLFLOW_TRACKING_PASSWORD"] != team_env["MLFLOW_TRACKING_PASSWORD"]
    (tmp_path / "home").mkdir()
    with new_postgres(other) as empty, new_s3(other, tmp_path / "s3.log") as store:
        inside = natively(other, empty, store)
        team.restore(folder, inside)

        for name in ("mlflow.dump", "store.tar"):
            damaged = tmp_path / f"damaged-{name}"
            shutil.copytree(folder, damaged)
            os.truncate(damaged / name, (damaged / name).stat().st_size // 2)
            with pytest.raises(SystemExit, match="ended with status"):  # and what is there stays
                team.restore(damaged, inside)

        assert objects(store).get_object(Bucket="genai-dvc", Key="files/md5/ab/c d")["Body"].read() == large
        with new_mlflow(other, empty, store, tmp_path / "home") as restored:
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", other["MLFLOW_TRACKING_PASSWORD"])
            run = mlflow.MlflowClient(restored.address).get_run(run_id)
            assert run.data.metrics == {"accuracy": 0.5}
            assert artifact(restored, run_id).text == "kept"
            old = requests.get(f"{restored.address}/", auth=key(mlflow_server), timeout=20)
            assert old.status_code == 401
        at = libpq(empty.environment)
        connection = psycopg2.connect(
            **at | {"user": "prefect", "password": other["PREFECT_DB_PASSWORD"]}, dbname="prefect"
        )
        with contextlib.closing(connection), connection.cursor() as cursor:  # as Prefect's server would
            cursor.execute("SELECT name FROM work_pool")
            assert ("kept",) in cursor.fetchall()
        for role, database in (("prefect", "mlflow"), ("mlflow", "prefect")):
            at |= {"user": role, "password": other[f"{role.upper()}_DB_PASSWORD"]}
            with pytest.raises(psycopg2.OperationalError, match="permission denied"):
                psycopg2.connect(**at, dbname=database)
