"""MLflow's scoring server behind a password, with bounded requests: python -P door.py MODEL_URI HOST PORT

A program of its own and outside the package `genai`, since the model brings that package's files as they were when it
was trained. The user is `genai`, the password is GENAI_SERVE_PASSWORD.
"""

import asyncio
import base64
import hmac
import os
import sys
from typing import Any

USER = "genai"
MAX_BYTES = 16 * 1024**2  # of a request: more than the most examples that a model takes
SECONDS = 30.0  # in which a request must have arrived
MAX_REQUESTS = 16  # at a time; the next is answered 503


class Door:
    """An ASGI application in front of another: who has no key is answered 401, a body that is too large 413."""

    def __init__(self, app: Any, password: str):
        self.app = app
        self.key = b"Basic " + base64.b64encode(f"{USER}:{password}".encode())

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        if scope["type"] != "http" or not hmac.compare_digest(headers.get(b"authorization", b""), self.key):
            return await refuse(send, 401, "a user and a password are needed")
        try:
            async with asyncio.timeout(SECONDS):
                body = await read(receive, int(headers.get(b"content-length", b"0")))
        except TimeoutError:
            return await refuse(send, 408, f"the request did not arrive in {SECONDS:.0f} s")
        except ValueError:
            return await refuse(send, 413, f"the request is over {MAX_BYTES} bytes")
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> dict[str, Any]:
            return next(whole, None) or await receive()

        await self.app(scope, replay, send)


async def read(receive: Any, announced: int) -> bytes:
    """Return a request's body. Raises ValueError where it is too large, before it is read where it says so itself."""
    body = bytearray()
    more = True
    while more:
        if max(announced, len(body)) > MAX_BYTES:
            raise ValueError
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > MAX_BYTES:
        raise ValueError
    return bytes(body)


async def refuse(send: Any, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="genai"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})


def main(uri: str, host: str, port: str) -> None:
    import mlflow.pyfunc
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(mlflow.pyfunc.load_model(uri))
    door = Door(app, os.environ.pop("GENAI_SERVE_PASSWORD"))
    uvicorn.run(
        door, host=host, port=int(port), limit_concurrency=MAX_REQUESTS, timeout_keep_alive=5, log_level="warning"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
