"""Who has no key, or a wrong one, is refused at every door: MLflow, Prefect, the store, the database."""

import contextlib
import itertools
import json
import re

import boto3
import psycopg2
import pytest
import requests
from botocore.config import Config
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.services.conftest import WRONG, libpq

# what MLflow tells anybody: that it is there, what it can do, the files of its page. Nothing of what is kept in it
MLFLOW_OPEN = {
    "/health",
    "/api/3.0/mlflow/server-info",
    "/ajax-api/3.0/mlflow/server-info",
    "/static-files/<path:path>",
}
PREFECT_OPEN = {"/health", "/ready"}


def mlflow_routes() -> set[tuple[str, str]]:
    """Every method and path of MLflow's server, by the lists that it routes by."""
    import mlflow.server
    from mlflow.server.fastapi_app import create_fastapi_app

    routes = {(method, rule.rule) for rule in mlflow.server.app.url_map.iter_rules() for method in rule.methods}
    for route in create_fastapi_app(mlflow.server.app).routes:
        routes |= {(method, route.path) for method in getattr(route, "methods", None) or ()}
    return {(method, path) for method, path in routes if method not in ("OPTIONS", "HEAD")}


def test_no_route_of_mlflow_answers_who_has_no_key(mlflow_server):
    routes = mlflow_routes()
    assert len(routes) > 300
    open_routes = set()
    with requests.Session() as session:
        for method, path in sorted(routes):
            address = mlflow_server.address + re.sub(r"<[^>]*>|{[^}]*}", "x", path)
            if session.request(method, address, json={}, timeout=10, allow_redirects=False).status_code != 401:
                open_routes.add(path)
    assert open_routes == MLFLOW_OPEN


DOORS_OF_MLFLOW = [
    ("GET", "/"),
    ("GET", "/api/2.0/mlflow/experiments/search?max_results=1"),
    ("POST", "/graphql"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/intruder"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/intruder"),
    ("GET", "/api/2.0/mlflow-artifacts/presigned/intruder"),
    ("POST", "/api/2.0/mlflow/users/create"),
]


@pytest.mark.parametrize(("method", "path"), DOORS_OF_MLFLOW)
def test_mlflow_refuses_wrong_keys(method, path, mlflow_server):
    for key in WRONG:
        assert requests.request(method, mlflow_server.address + path, auth=key, timeout=10).status_code == 401


def test_mlflow_lets_in_who_has_the_key_and_refuses_other_hosts(mlflow_server):
    key = tuple(mlflow_server.environment[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD"))
    for method, path in DOORS_OF_MLFLOW[:2]:
        assert requests.request(method, mlflow_server.address + path, auth=key, timeout=10).ok
    rebound = requests.get(f"{mlflow_server.address}/", auth=key, headers={"Host": "evil.test"}, timeout=10)
    assert rebound.status_code == 403


def prefect_key(prefect_server) -> tuple[str, str]:
    user, _, password = prefect_server.environment["PREFECT_API_AUTH_STRING"].partition(":")
    return user, password


def test_no_route_of_prefect_answers_who_has_no_key_or_a_wrong_one(prefect_server):
    root = prefect_server.address.removesuffix("/api")
    paths = requests.get(f"{root}/openapi.json", timeout=20).json()["paths"]
    assert len(paths) > 100
    open_routes = set()
    with requests.Session() as session:
        for key, (path, methods) in itertools.product(WRONG, paths.items()):
            for method in methods:
                address = root + "/api" + re.sub(r"{[^}]*}", "x", path).removeprefix("/api")
                if session.request(method, address, json={}, auth=key, timeout=10).status_code != 401:
                    open_routes.add(path.removeprefix("/api"))
    assert open_routes == PREFECT_OPEN
    assert requests.get(f"{prefect_server.address}/version", auth=prefect_key(prefect_server), timeout=10).ok


def test_the_page_of_prefect_asks_for_the_key_and_holds_none(prefect_server, team_env):
    root = prefect_server.address.removesuffix("/api")
    settings = requests.get(f"{root}/ui-settings", timeout=10)
    assert settings.json()["auth"] == "BASIC"
    page = requests.get(root, timeout=10).text
    secrets = [value for name, value in team_env.items() if "PASSWORD" in name or "SECRET" in name or "AUTH" in name]
    assert len(secrets) > 5 and not any(secret.split(":")[-1] in settings.text + page for secret in secrets)


@pytest.mark.parametrize(
    "path",
    ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled", "work_pools/cpu/workers/connect"],
)
@pytest.mark.parametrize("token", [None, "admin:wrong", ""])
def test_the_events_of_prefect_are_closed_to_wrong_keys(path, token, prefect_server):
    address = f"{prefect_server.address.replace('http', 'ws', 1)}/{path}"
    with pytest.raises(ConnectionClosed), connect(address, subprotocols=["prefect"], open_timeout=10) as socket:
        if token is None:
            socket.send(json.dumps({"type": "event", "event": {}}))
        else:
            socket.send(json.dumps({"type": "auth", "token": token}))
        while True:
            socket.recv(timeout=10)


def test_the_events_of_prefect_open_to_the_key(prefect_server):
    address = f"{prefect_server.address.replace('http', 'ws', 1)}/events/out"
    with connect(address, subprotocols=["prefect"]) as socket:
        socket.send(json.dumps({"type": "auth", "token": prefect_server.environment["PREFECT_API_AUTH_STRING"]}))
        assert json.loads(socket.recv(timeout=10))["type"] == "auth_success"


def s3_client(s3, key: str, secret: str):
    return boto3.client(
        "s3",
        endpoint_url=s3.address,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def test_the_store_refuses_wrong_keys_and_unsigned_requests(s3):
    own = s3_client(s3, s3.environment["AWS_ACCESS_KEY_ID"], s3.environment["AWS_SECRET_ACCESS_KEY"])
    own.put_object(Bucket="genai-dvc", Key="kept", Body=b"kept")
    for key, secret in ((s3.environment["AWS_ACCESS_KEY_ID"], "wrong"), ("nobody", "wrong")):
        wrong = s3_client(s3, key, secret)
        for refused in (
            wrong.list_buckets,
            lambda wrong=wrong: wrong.list_objects_v2(Bucket="genai-dvc"),
            lambda wrong=wrong: wrong.get_object(Bucket="genai-dvc", Key="kept"),
            lambda wrong=wrong: wrong.put_object(Bucket="genai-dvc", Key="kept", Body=b"changed"),
            lambda wrong=wrong: wrong.delete_object(Bucket="genai-dvc", Key="kept"),
        ):
            with pytest.raises(ClientError) as error:
                refused()
            assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    for method, path in (("GET", ""), ("GET", "genai-dvc"), ("GET", "genai-dvc/kept"), ("PUT", "genai-dvc/kept")):
        assert requests.request(method, f"{s3.address}/{path}", timeout=10).status_code == 403
    assert own.get_object(Bucket="genai-dvc", Key="kept")["Body"].read() == b"kept"


def test_the_database_refuses_wrong_passwords_and_each_role_the_other_database(postgres, team_env):
    passwords = {role: team_env[f"{role.upper()}_DB_PASSWORD"] for role in ("prefect", "mlflow")}
    at = {k: v for k, v in libpq(postgres.environment).items() if k in ("host", "port")}
    for role, password in passwords.items():
        connection = psycopg2.connect(**at, user=role, password=password, dbname=role)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = %s", [role])
            assert cursor.fetchone() == (False,)
    refused = [("postgres", "postgres", "postgres"), ("prefect", "wrong", "prefect"), ("mlflow", "", "mlflow")]
    refused += [("mlflow", passwords["mlflow"], "prefect"), ("prefect", passwords["prefect"], "mlflow")]
    for user, password, database in refused:
        with pytest.raises(psycopg2.OperationalError, match=r"authentication failed|no password|permission denied"):
            psycopg2.connect(**at, user=user, password=password, dbname=database)
