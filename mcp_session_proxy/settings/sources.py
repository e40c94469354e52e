"""What options are called where: as a flag, as an environment variable, as a key of the TOML file.

Also the reading of that file, and the one error that everything about the configuration raises.
"""

import difflib
import os
import tomllib
from collections.abc import Collection, Iterable, Mapping, Set
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from .values import hide_user

ENV_PREFIX: Final = "MCP_SESSION_PROXY_"
_FLAGS: Final = {"upstream": "URL", "command": "--stdio"}
# No option has this name, so the model complains of it, together with all that is wrong elsewhere.
FILE_PROBLEMS: Final = ""


class ConfigError(Exception):
    """Options have wrong values: a line for each, which names it as its user did and says what is allowed.

    No user and no password of a URL are in it, wherever it was written.
    """

    def __init__(self, text: str) -> None:
        super().__init__(hide_user(text))


class Source(StrEnum):
    """Where values come from; the earlier wins."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class Provenance(msgspec.Struct, frozen=True):
    """Where an option's value comes from. ``name`` is the flag, the variable or the file."""

    source: Source
    name: str | None = None


def env_name(field: str) -> str:
    """The environment variable of an option."""
    return ENV_PREFIX + field.upper()


def flag_name(field: str) -> str:
    """The flag of an option; the upstream's URL is the one positional argument, and a command follows --."""
    return _FLAGS.get(field) or "--" + key_name(field)


def key_name(field: str) -> str:
    """The key of an option in the file (underscores are understood, too)."""
    return field.replace("_", "-")


def origin(field: str, flags: Mapping[str, Any]) -> Provenance:
    """Where an option that was given was given: in ``flags``, the environment, or the file that is left."""
    if field in flags:
        return Provenance(Source.FLAG, flag_name(field))
    variables = _variables()
    if (variable := variables.get(env_name(field))) is not None:
        return Provenance(Source.ENVIRONMENT, variable)
    path = flags.get("config") or os.environ[variables[env_name("config")]]
    return Provenance(Source.FILE, str(path))


def gather(flags: Mapping[str, Any], fields: Set[str]) -> dict[str, Any]:
    """All that was given of these options, as it was written.

    Flags win over variables, and these over the file that one of them names.

    Raises:
        ConfigError: the file cannot be read.
    """
    variables = _variables()
    environment = {
        field: os.environ[variables[name]] for field in fields if (name := env_name(field)) in variables
    }
    given = {**environment, **flags}
    if not given.get("config"):
        return given
    values, problems = read_file(Path(given["config"]), fields - {"config"})
    return {**values, **given, **({FILE_PROBLEMS: problems} if problems else {})}


def _variables() -> dict[str, str]:
    """The names of all variables by their names in capitals: how an option's is written does not matter."""
    return {name.upper(): name for name in os.environ}


def read_file(path: Path, fields: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of a TOML file, by field name, and its problems: keys that are not in ``fields``, or twice.

    Raises:
        ConfigError: the file cannot be read.
    """
    values: dict[str, Any] = {}
    problems = []
    for key, value in _read_toml(path).items():
        field = key.replace("-", "_")
        if field not in fields:
            problems.append(f"{path}: there is no option {key!r}{suggest(key, map(key_name, fields))}")
        elif field in values:
            problems.append(f"{path}: the option {key!r} is given twice")
        else:
            values[field] = value
    return values, problems


def suggest(word: str, candidates: Iterable[str]) -> str:
    """The end of a sentence that complains about ``word``: which candidate was meant, if one is close."""
    close = difflib.get_close_matches(word.replace("_", "-"), list(candidates), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config: {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: {path} is not valid TOML: {error}") from None
