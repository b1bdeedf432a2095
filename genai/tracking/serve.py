"""Answers over HTTP by a champion, behind a password: what `python -m genai serve NAME` becomes."""

import os
import socket
import sys
from pathlib import Path

from genai.core.config import UserError
from genai.tracking.store import Store, one_line_errors, registered_name, store_uri


def serve(root: Path, name: str, host: str, port: int) -> None:
    """Become the server of NAME's champion. Raises UserError before that, where it could not serve."""
    password = os.environ.get("GENAI_SERVE_PASSWORD", "")
    if len(password) < 12:
        raise UserError(f"GENAI_SERVE_PASSWORD: of {len(password)} characters, should be of 12 or more")
    with one_line_errors(root):
        from mlflow.exceptions import MlflowException

        try:
            Store(root).client.get_model_version_by_alias(registered_name(name), "champion")
        except MlflowException as error:
            raise UserError(f"models:/{registered_name(name)}@champion: {str(error).splitlines()[0]}") from None
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one just closed is free
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "should be 1 to 65535"
            raise UserError(f"{host}:{port}: {reason}; choose others by --host and --port") from None
    print(f"models:/{registered_name(name)}@champion  http://{host}:{port}/invocations  user genai", flush=True)
    os.environ["MLFLOW_TRACKING_URI"] = store_uri(root)
    door = str(Path(__file__).with_name("door.py"))
    # not from this folder nor by a path that leads here: the model's own copy of the package answers
    os.environ.pop("PYTHONPATH", None)
    uri = f"models:/{registered_name(name)}@champion"
    os.execv(sys.executable, [sys.executable, "-P", door, uri, host, str(port)])
