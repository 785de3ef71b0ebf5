"""Needs nothing but a Python."""


def run(text):
    return {"attrs": None, "row": {"text": text[::-1]}}
