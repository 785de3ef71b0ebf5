"""Make and find Python environments; knows nothing of workers.

Owns no state of its own: environments and what is known of interpreters live in the home folder (see `store`).
"""

from venvoy.envs.env import Env, EnvInfo
from venvoy.envs.garbage import Collected
from venvoy.envs.installer import Progress
from venvoy.envs.interpreter import Interpreter
from venvoy.envs.limit import Cancel
from venvoy.envs.locks import EnvLease
from venvoy.envs.spec import EnvSpec
from venvoy.envs.store import build, collect_garbage, environments, hold, home_folder, interpreters, resolve

__all__ = [
    "Cancel",
    "Collected",
    "Env",
    "EnvInfo",
    "EnvLease",
    "EnvSpec",
    "Interpreter",
    "Progress",
    "build",
    "collect_garbage",
    "environments",
    "hold",
    "home_folder",
    "interpreters",
    "resolve",
]
