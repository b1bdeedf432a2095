"""Python imports this at its start where PYTHONPATH names this folder: notes what a stage of `dvc repro` opens to read.

Python's own `open` is not the only way to read, so that folders are also told by the stages themselves.
"""

import atexit
import json
import os
import sys

if sys.orig_argv[1:3] == ["-m", "genai"]:
    seen = set()

    def note(event, arguments):
        if event == "open" and isinstance(arguments[0], str) and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            seen.add(os.path.relpath(arguments[0]))

    def write():
        path = os.path.join(os.environ["OPENED"], "_".join(sys.orig_argv[3:]) + ".json")
        with open(path, "w") as file:
            json.dump(sorted(seen), file)

    sys.addaudithook(note)
    atexit.register(write)
