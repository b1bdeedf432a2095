"""What `make team`, `make backup` and `make restore` do: secrets and start of the services, what they hold as files.

python services/team.py up | backup | restore FOLDER; needs nothing but Python's library, Docker and, for `up`, DVC.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent.parent
DATABASES = ("prefect", "mlflow")
Inside = Callable[..., list[str]]  # (service, *command): the command line that runs the command in a service


def filled(example: str) -> str:
    """Return the text of .env: .env.example with a fresh secret after each `=` or `:` that ends a line."""
    lines = example.splitlines()
    return "".join(
        f"{line}{secrets.token_hex(24) if line[-1:] in ('=', ':') and line[0] != '#' else ''}\n" for line in lines
    )


def completed(before: str, example: str) -> str:
    """Return the text of a .env with what it lacks, or leaves empty, of .env.example; what it says stays."""
    if not before:
        return filled(example)
    told = values(before)
    new = [f"{name}={value}\n" for name, value in values(filled(example)).items() if not told.get(name)]
    return before + ("" if before.endswith("\n") or not new else "\n") + "".join(new)


def values(text: str) -> dict[str, str]:
    """Return what a .env says."""
    pairs = (line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, value in pairs}


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def compose(*arguments: str) -> list[str]:
    return ["docker", "compose", *arguments]


def inside(service: str, *command: str) -> list[str]:
    """PostgreSQL is up; of any other service a container is made for the command."""
    how = ("exec", "-T") if service == "postgres" else ("run", "--rm", "-T", "--no-deps")
    return compose(*how, service, *command)


def run(command: list[str], **options) -> None:
    """Run a command; a failure ends this program with the command's own words and one line."""
    try:
        status = subprocess.run(command, check=False, cwd=HERE, env=environment(), **options).returncode
    except FileNotFoundError:
        sys.exit(f"team: {command[0]}: not found; Docker with compose v2 should be here")
    if status:
        shown = " ".join(command[:5])  # what follows may be a secret
        sys.exit(f"team: {shown} ended with status {status}")


def environment() -> dict[str, str]:
    """Return this environment without what .env says: a key of another service in the shell is not the team's."""
    own = values((HERE / ".env").read_text()) if (HERE / ".env").exists() else {}
    return {name: value for name, value in os.environ.items() if name not in own}


def up() -> None:
    """Start everything, with a .env made or completed where it is not there, and tell DVC here of the store."""
    env = HERE / ".env"
    before = env.read_text() if env.exists() else ""
    after = completed(before, (HERE / ".env.example").read_text())
    if after != before:
        write(env, after)
        print("team: wrote fresh secrets into .env; keep a copy where you keep passwords", flush=True)
    run(compose("up", "--build", "--detach", "--wait"))
    told = values(env.read_text())
    os.umask(0o077)
    for name, value in {
        "core.remote": "team",
        "remote.team.endpointurl": told["AWS_ENDPOINT_URL_S3"],
        "remote.team.access_key_id": told["AWS_ACCESS_KEY_ID"],
        "remote.team.secret_access_key": told["AWS_SECRET_ACCESS_KEY"],
    }.items():
        run([sys.executable, "-m", "dvc", "config", "--local", name, value])
    print(
        f"\nMLflow   {told['MLFLOW_TRACKING_URI']}/   user {told['MLFLOW_TRACKING_USERNAME']}, "
        "password: MLFLOW_TRACKING_PASSWORD in .env\n"
        f"Prefect  {told['PREFECT_API_URL'].removesuffix('/api')}/   PREFECT_API_AUTH_STRING in .env, the whole of it\n"
        "Here     set -a; . ./.env; set +a   then: python -m flows.pipeline, dvc push, prefect, mlflow\n"
    )


def backup(to: Path, inside: Inside = inside) -> Path:
    """Write both databases and the store's objects into a new folder. The databases first: what they name is in the store."""
    folder = to / time.strftime("%Y-%m-%d-%H%M%S")
    partial = folder.with_name(f".{folder.name}")
    partial.mkdir(parents=True, mode=0o700)
    try:
        for name in DATABASES:
            command = inside("postgres", "pg_dump", "--username=postgres", "--format=custom", name)
            _to_file(partial / f"{name}.dump", command)
        _to_file(partial / "store.tar", inside("buckets", "python", "/services/store.py", "dump"))
    except BaseException:
        shutil.rmtree(partial)
        raise
    partial.rename(folder)
    return folder


def _to_file(path: Path, command: list[str]) -> None:
    with open(path, "xb") as file:
        run(command, stdout=file)
        os.fsync(file.fileno())


def restore(folder: Path, inside: Inside = inside) -> None:
    """Put back what `backup` wrote, in place of what is there. Nothing is replaced before all of it has been read.

    MLflow's administrator gets the password of this .env, which need not be that of the backup.
    """
    for name in DATABASES:
        _sql(inside, f"DROP DATABASE IF EXISTS {name}_new WITH (FORCE)", f"CREATE DATABASE {name}_new OWNER {name}")
        with open(folder / f"{name}.dump", "rb") as file:
            options = ("--username=postgres", "--exit-on-error", "--single-transaction", f"--dbname={name}_new")
            run(inside("postgres", "pg_restore", *options), stdin=file)
    with open(folder / "store.tar", "rb") as file:
        run(inside("buckets", "python", "/services/store.py", "load"), stdin=file)
    for name in DATABASES:
        _sql(
            inside,
            f"REVOKE CONNECT ON DATABASE {name}_new FROM PUBLIC",
            f"BEGIN; ALTER DATABASE {name} RENAME TO {name}_old; ALTER DATABASE {name}_new RENAME TO {name}; COMMIT",
            f"DROP DATABASE {name}_old WITH (FORCE)",
        )
    run(inside("mlflow", "python", "-c", ADMINISTRATOR))


# MLflow makes its administrator once, and later does not look at the password that its environment has
ADMINISTRATOR = """
from mlflow.server.auth.config import read_auth_config
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
config, store = read_auth_config(), SqlAlchemyStore()
store.init_db(config.database_uri)
if store.has_user(config.admin_username):
    store.update_user(config.admin_username, password=config.admin_password)
"""


def _sql(inside: Inside, *statements: str) -> None:
    commands = [f"--command={statement}" for statement in statements]
    run(inside("postgres", "psql", "--username=postgres", "--quiet", "--no-psqlrc", "-vON_ERROR_STOP=1", *commands))


def main() -> None:
    match sys.argv[1:]:
        case ["up"]:
            up()
        case ["backup"]:
            print(f"team: {backup(HERE / 'backups').relative_to(HERE)}")
        case ["restore", folder]:
            missing = [
                name for name in ("prefect.dump", "mlflow.dump", "store.tar") if not (HERE / folder / name).is_file()
            ]
            if missing:
                sys.exit(
                    f"team: BACKUP={folder!r} should be a folder that `make backup` wrote; {missing[0]} is not in it"
                )
            run(compose("--profile", "*", "stop", "mlflow", "prefect", "cpu-worker", "gpu-worker"))
            run(compose("up", "--detach", "--wait", "postgres", "store"))
            restore(HERE / folder)
            up()
        case _:
            sys.exit("usage: python services/team.py up | backup | restore FOLDER")


if __name__ == "__main__":
    main()
