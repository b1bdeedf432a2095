"""An S3 server that stands in for the store where its image cannot be pulled: moto's, which asks for the store's keys.

python moto_store.py HOST PORT; the keys are of the environment, by the names that the store's image gives them. What
it holds is in memory.
"""

import os
import sys

from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam import iam_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Response

host, port = sys.argv[1:]
iam = iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
iam.create_user("us-east-1", "root")
key = iam.create_access_key("root", prefix="AKIA")
key.access_key_id, key.secret_access_key = os.environ["ROOT_ACCESS_KEY_ID"], os.environ["ROOT_SECRET_ACCESS_KEY"]
everything = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
iam.put_user_policy("root", "everything", everything)
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0  # it checks every signature
moto = DomainDispatcherApplication(create_backend_app)


def store(environ, start_response):
    if environ["PATH_INFO"] == os.environ.get("VGW_HEALTH"):
        return Response("OK")(environ, start_response)
    if "HTTP_AUTHORIZATION" not in environ:  # moto answers 500
        return Response("AccessDenied", 403)(environ, start_response)
    return moto(environ, start_response)


run_simple(host, int(port), store, threaded=True)
