"""A module that takes a while to import."""

import time

FIRST = 1
time.sleep(0.3)
LAST = 2


def last():
    return LAST
