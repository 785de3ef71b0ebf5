"""A host of plugins that could never share one process: three want other packages, one crashes.

Run it with `python main.py`. Each folder under `plugins` is a plugin: `plugin.py` with a function `run`, and
`plugin.toml` with the packages it needs.
"""

import tomllib
from pathlib import Path

import venvoy as vv

PLUGINS = Path(__file__).parent / "plugins"


def load(folder: Path) -> vv.Pool:
    """Return a pool for one plugin; nothing is built or started before it is used."""
    packages = tomllib.loads((folder / "plugin.toml").read_text()).get("packages", [])
    worker = vv.WorkerOptions(paths=[folder], output="discard", output_tail_bytes=4096)
    return vv.Pool(vv.EnvSpec(packages), "plugin", workers=(0, 1), worker=worker, name=folder.name)


def main() -> None:
    plugins = {folder.name: load(folder) for folder in sorted(PLUGINS.iterdir())}
    try:
        for text in ("one", "two"):
            for name, pool in plugins.items():
                try:
                    result = pool.options(timeout=60).call("run", text)
                    print(f"{name}: attrs {result['attrs']}, {result['row']['text']}")
                except vv.WorkerCrashed as error:
                    how = error.signal.name if error.signal else f"status {error.exit_status}"
                    print(f"{name}: crashed with {how}, having said {error.output_tail.strip()!r}")
    finally:
        for pool in plugins.values():
            pool.close()


if __name__ == "__main__":
    main()
