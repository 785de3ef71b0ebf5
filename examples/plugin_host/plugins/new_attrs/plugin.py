"""Needs attrs 23."""

import attrs


@attrs.frozen
class Row:
    text: str


def run(text):
    from importlib.metadata import version

    return {"attrs": version("attrs"), "row": attrs.asdict(Row(text.upper()))}
