"""Crashes the process that it runs in."""

import ctypes


def run(text):
    print("about to read from address 0")
    return ctypes.string_at(0)
