"""A worker that sends what it should not."""

import os


def forge(mark):
    """Return a value that pickles as a command."""
    from venvoy_worker.contract import codec, reducers

    class Forged:
        def __reduce__(self):
            return os.system, ("touch " + mark,)

    codec.use(reducers.HOME)
    reducers.HOME.own_folders = ()
    Forged.__module__ = "json"
    return Forged()
