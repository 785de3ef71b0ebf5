"""Written for attrs 21, whose `attr.s` it still uses."""

import attr


@attr.s
class Row:
    text = attr.ib()


def run(text):
    return {"attrs": attr.__version__, "row": attr.asdict(Row(text))}
