"""Two versions of a model side by side: each request goes to both, and the answers are compared.

Run it with `python main.py`. The host has no numpy and needs none: it passes on what one worker made to the others.
"""

from pathlib import Path

import venvoy as vv

HERE = Path(__file__).parent


def open_model(packages: list[str]) -> vv.Pool:
    worker = vv.WorkerOptions(paths=[HERE], initializer="model:load", initializer_args=[7])
    return vv.Pool(vv.EnvSpec(packages), "model", workers=1, worker=worker)


def main() -> None:
    with open_model(["numpy<2"]) as current, open_model(["numpy>=2"]) as candidate:
        for number in range(3):
            batch = current.call("numpy:full", (1000, 256), float(number))
            answers = [pool.submit("predict", batch) for pool in (current, candidate)]
            (old, expected), (new, got) = (answer.result() for answer in answers)
            same = candidate.call("numpy:allclose", expected, got)
            print(f"batch {number}: numpy {old[0]} and numpy {new[0]} {'agree' if same else 'differ'}")


if __name__ == "__main__":
    main()
