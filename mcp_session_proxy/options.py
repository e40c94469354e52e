"""What options are called where: as a flag, as an environment variable, as a key of the TOML file.

Also the reading of that file, and the one error that everything about the configuration raises.
"""

import difflib
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

ENV_PREFIX: Final = "MCP_SESSION_PROXY_"


class ConfigError(Exception):
    """An option has a wrong value. The text names it as the user wrote it, and says what is allowed."""


def env_name(field: str) -> str:
    """The environment variable of an option."""
    return ENV_PREFIX + field.upper()


def flag_name(field: str) -> str:
    """The flag of an option; the upstream's URL is the one positional argument."""
    return "URL" if field == "upstream" else "--" + key_name(field)


def key_name(field: str) -> str:
    """The key of an option in the file (underscores are understood, too)."""
    return field.replace("_", "-")


def read_file(path: Path, fields: Collection[str]) -> dict[str, Any]:
    """The values of a TOML file, by field name.

    Raises:
        ConfigError: the file cannot be read, or has a key that is none of ``fields``, or one twice.
    """
    values: dict[str, Any] = {}
    for key, value in _read_toml(path).items():
        field = key.replace("-", "_")
        if field not in fields:
            raise ConfigError(f"{path}: there is no option {key!r}{suggest(key, map(key_name, fields))}")
        if field in values:
            raise ConfigError(f"{path}: the option {key!r} is given twice")
        values[field] = value
    return values


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
