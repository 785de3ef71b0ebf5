"""Make and find Python environments; knows nothing of workers.

Owns no state of its own: environments and what is known of interpreters live in the home folder (see `store`).
"""

from venvoy.envs.installer import Progress
from venvoy.envs.interpreter import Interpreter
from venvoy.envs.limit import Cancel
from venvoy.envs.spec import EnvSpec
from venvoy.envs.store import Env, build, home_folder, interpreters, resolve

__all__ = ["Cancel", "Env", "EnvSpec", "Interpreter", "Progress", "build", "home_folder", "interpreters", "resolve"]
