"""MLflow's view of the files of the stages: runs, live curves, and a registry with a gate for its champion.

Files are the truth, MLflow is a view of them: no stage needs it, and all of it can be made again by
`python -m genai track`. No other folder imports MLflow, and this one only once there is something to do:
importing it takes seconds.
"""

from genai.tracking.follow import follow
from genai.tracking.mirror import track
from genai.tracking.release import local_copy, release
from genai.tracking.store import page, store_uri

__all__ = ["follow", "local_copy", "page", "release", "store_uri", "track"]
