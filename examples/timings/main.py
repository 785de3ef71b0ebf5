"""A sheet of timings, drawn with matplotlib in a worker: the host has no matplotlib.

Run it with `python main.py [FILE]`; it writes a picture of how long calls took.
"""

import sys
from pathlib import Path
from time import perf_counter

import venvoy as vv


def draw(series: dict[str, list[float]]) -> bytes:
    """Return a PNG; runs in the worker, shipped as source."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3))
    for name, seconds in series.items():
        axes.plot([s * 1e6 for s in seconds], label=name)
    axes.set_yscale("log")
    axes.set_ylabel("µs")
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def measure(pool: vv.Pool, count: int = 200) -> dict[str, list[float]]:
    """Return the seconds that calls of three targets took."""
    series: dict[str, list[float]] = {}
    for name, target, argument in (("sqrt", "math:sqrt", 2.0), ("sum", "builtins:sum", list(range(1000)))):
        pool.call(target, argument)
        for _ in range(count):
            begin = perf_counter()
            pool.call(target, argument)
            series.setdefault(name, []).append(perf_counter() - begin)
    return series


def main() -> None:
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "timings.png")
    with vv.Pool(vv.EnvSpec(packages=["matplotlib"]), workers=1) as pool:
        file.write_bytes(pool.call(draw, measure(pool)))
    where = "here" if "matplotlib" in sys.modules else "only in the worker"
    print(f"{file.name}: drawn, and matplotlib is {where}")


if __name__ == "__main__":
    main()
