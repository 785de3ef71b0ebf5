"""What of the user's process environment and configuration reaches an installer, and so the key.

Owns no state; everything is read anew at each call. Laws: no project configuration is ever looked for,
only what the user or the machine has set for every program; what can change the result of a resolution is
in `index_settings` and thereby in the key; no credential leaves this module except inside the process
environment of the installer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

# Change what gets installed, so they are part of the key. PIP_* are pip's: uv does not read them.
_RESOLUTION_VARIABLES = (
    "PIP_CONSTRAINT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_NO_BINARY",
    "PIP_NO_INDEX",
    "PIP_ONLY_BINARY",
    "PIP_PRE",
    "PIP_PREFER_BINARY",
    "UV_DEFAULT_INDEX",
    "UV_EXCLUDE_NEWER",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_INDEX_URL",
    "UV_NO_BINARY",
    "UV_NO_BINARY_PACKAGE",
    "UV_NO_BUILD",
    "UV_NO_BUILD_PACKAGE",
    "UV_NO_INDEX",
    "UV_PRERELEASE",
    "UV_RESOLUTION",
    "UV_TORCH_BACKEND",
)
# How installers reach and store packages. Every other UV_* and PIP_* stays behind: UV_PROJECT, PIP_TARGET, …
_TRANSPORT_VARIABLES = re.compile(
    r"UV_(CACHE_DIR|NO_CACHE|LINK_MODE|OFFLINE|HTTP_\w+|REQUEST_TIMEOUT|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST"
    r"|KEYRING_PROVIDER|CONCURRENT_\w+|GITHUB_TOKEN|PYTHON_INSTALL_DIR|INDEX_\w+_(USERNAME|PASSWORD))"
    r"|PIP_(CACHE_DIR|NO_CACHE_DIR|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|RETRIES|TIMEOUT|DEFAULT_TIMEOUT"
    r"|KEYRING_PROVIDER|CONFIG_FILE)"
)
# Settings of the host's own interpreter or environment, wrong for any other one.
_FOREIGN_VARIABLES = re.compile(r"(UV_|PIP_|PYTHON|VIRTUAL_ENV|_?CONDA_).*|__PYVENV_LAUNCHER__|RUST_LOG")
# Lead another interpreter, or an installer started by it, back into the host's environment or project.
_HOST_VARIABLES = re.compile(
    r"(PYTHON|VIRTUAL_ENV|_?CONDA_).*|__PYVENV_LAUNCHER__|UV|UV_(PROJECT\w*|PYTHON|SYSTEM_PYTHON|TARGET|PREFIX"
    r"|WORKING_DIRECTORY|ENV_FILE|RUN_RECURSION_DEPTH)|PIP_(TARGET|PREFIX|USER|PYTHON|ROOT|REQUIRE_VIRTUALENV)"
)
_SECRET_VARIABLES = re.compile(r"UV_INDEX_\w+_PASSWORD|UV_GITHUB_TOKEN")
_CREDENTIALS = re.compile(r"(?<=://)[^\s/]*@")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Return the text with `user:password@` of every URL, and the given secrets, replaced by `***`."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _CREDENTIALS.sub("***@", text)


def secrets_of(urls: Iterable[str], environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the passwords in the URLs and in the installer's variables, which no output may show.

    Args:
        urls: URLs or requirements as the user gave them.
        environ: a process environment; the host's own by default.
    """
    environ = os.environ if environ is None else environ
    found = {value for name, value in environ.items() if _SECRET_VARIABLES.fullmatch(name)}
    configured = (environ.get(name, "") for name in _RESOLUTION_VARIABLES)
    for text in (*urls, *configured):
        for match in _CREDENTIALS.finditer(text):
            user, _, password = match[0][:-1].partition(":")
            found.add(password or user)
    # A short "secret" (git@, an empty one) would blot out ordinary words of a message.
    return sorted((secret for secret in found if len(secret) > 3), key=len, reverse=True)


def user_config() -> str | None:
    """Return the path of uv's configuration file of this user, else of this machine, or None.

    Only this one file is handed to uv, so that no `uv.toml` or `pyproject.toml` near the working folder counts.
    """
    if os.environ.get("UV_NO_CONFIG", "").lower() in ("1", "true", "yes", "on"):
        return None
    named = os.environ.get("UV_CONFIG_FILE")
    folders = [
        os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"),
        *(os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep),
        "/etc",
    ]
    for path in (named, *(os.path.join(folder, "uv", "uv.toml") for folder in folders)):
        if path and os.path.isfile(path):
            return os.path.abspath(path)
    return None


def index_settings(installer: str = "auto") -> list[str]:
    """Return every setting outside the spec that can change what gets installed, without credentials."""
    found = [f"{name}={redact(os.environ[name])}" for name in _RESOLUTION_VARIABLES if os.environ.get(name)]
    for config in _pip_configs() if installer == "pip" else filter(None, [user_config()]):
        try:
            with open(config, encoding="utf-8", errors="replace") as file:
                found.append(redact(file.read()))
        except OSError:
            pass  # unreadable for us is unreadable for the installer, which says so at the next build
    return found


def _pip_configs() -> list[str]:
    """Return the paths of pip's configuration files, of the machine and of the user, as its documentation has it."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    machine = (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    named = os.environ.get("PIP_CONFIG_FILE")
    paths = [*(os.path.join(folder, "pip", "pip.conf") for folder in machine), "/etc/pip.conf"]
    paths += [os.path.expanduser("~/.pip/pip.conf"), os.path.join(config, "pip", "pip.conf")]
    return [path for path in (*paths, *([named] if named else [])) if os.path.isfile(path)]


def tool_environment() -> dict[str, str]:
    """Return the process environment for an installer or a probed interpreter: the host's, scrubbed."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _RESOLUTION_VARIABLES
        or _TRANSPORT_VARIABLES.fullmatch(name)
        or not _FOREIGN_VARIABLES.fullmatch(name)
    }
    ours = {"UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never", "PIP_NO_INPUT": "1", "PIP_NO_COLOR": "1"}
    return {**kept, **ours, "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off"}


def program_environment(host_scripts: Iterable[str]) -> dict[str, str]:
    """Return the process environment for programs of an environment: the host's, without what is only the host's own.

    Args:
        host_scripts: folders taken out of `PATH`, since they are those of the host's environment.
    """
    environ = {name: value for name, value in os.environ.items() if not _HOST_VARIABLES.fullmatch(name)}
    active = [os.environ.get(name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX")]
    foreign = {*host_scripts, *(os.path.join(prefix, "bin") for prefix in active if prefix)}
    path = [folder for folder in environ.get("PATH", os.defpath).split(os.pathsep) if folder and folder not in foreign]
    return {**environ, "PATH": os.pathsep.join(path)}
