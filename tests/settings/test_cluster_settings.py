"""The options of a store: what goes with what, what keys look like, and that nothing secret is shown."""

from pathlib import Path
from typing import Any

import pytest

from mcp_session_proxy.settings.cluster import cluster_keys, namespace_of
from mcp_session_proxy.settings.config import Settings, load
from mcp_session_proxy.settings.effective import collect, problems
from mcp_session_proxy.settings.sources import ConfigError

URL = "http://127.0.0.1:1/mcp"
KEY = "0123456789abcdef" * 4
STORE = {"upstream": URL, "store": "valkey://me:hidden@h", "cluster": "c", "cluster_key": KEY}


def without(name: str, **others: Any) -> dict[str, Any]:
    return {key: value for key, value in (STORE | others).items() if key != name}


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (without("cluster"), "--store: *** is not allowed; it needs --cluster NAME"),
        (without("cluster_key"), "--store: *** is not allowed; it needs --cluster-key-file FILE"),
        (without("store"), "--cluster-key: *** is not allowed; it needs --store"),
        (
            STORE | {"cluster_key_file": "f"},
            "--cluster-key: *** is not allowed; it must not be given together",
        ),
        (STORE | {"cluster_key": "hidden"}, "--cluster-key: *** is not allowed; it must be keys of 64 hex"),
        (STORE | {"store": "hidden@h"}, "--store: *** is not allowed; it must be the URL of a Valkey"),
        (STORE | {"cluster": "a b"}, "--cluster: 'a b' is not allowed; it must be a name"),
    ],
)
def test_wrong_ones(flags: dict[str, Any], problem: str) -> None:
    """Each is told with what is missing; what may be secret is not repeated."""
    with pytest.raises(ConfigError) as refused:
        load(flags)
    assert problem in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_nothing_secret_is_shown() -> None:
    """Neither the password nor the key."""
    shown = {row.option.key: row.text for row in collect(STORE)}
    assert (shown["store"], shown["cluster-key"]) == ("valkey://h:6379", "***")
    settings = load(STORE)
    assert not {"hidden", KEY} & set(repr(settings).replace("'", " ").split())
    assert "hidden" not in repr(settings)


def keys_of(text: str, folder: Path) -> tuple[bytes, ...]:
    file = folder / "keys"
    file.write_text(text)
    return cluster_keys(load(without("cluster_key", cluster_key_file=str(file))))


def test_a_file_of_keys(tmp_path: Path) -> None:
    """One a line, the first seals; blanks and remarks are passed over."""
    other = KEY[::-1].upper()
    assert keys_of(f"# ours\n{KEY}\n\n  {other}\n", tmp_path) == (bytes.fromhex(KEY), bytes.fromhex(other))
    assert cluster_keys(load(STORE)) == (bytes.fromhex(KEY),)
    assert len(cluster_keys(load(STORE | {"cluster_key": f"{KEY} {other}"}))) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no key in it"),
        (f"{KEY}\nshort", "line 2 is no key"),
        (f"{KEY}00", "line 1 is no key"),
        ("ä" * 64, "line 1 is no key"),
        (f"{KEY}\n{KEY}", "twice"),
        ("\n".join(f"{number:064x}" for number in range(17)), "more than 16"),
    ],
)
def test_bad_files(text: str, problem: str, tmp_path: Path) -> None:
    """The complaint names file and line, and says nothing of what is there."""
    with pytest.raises(ConfigError, match=problem) as refused:
        keys_of(text, tmp_path)
    assert str(tmp_path / "keys") in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """`config check` says so, too."""
    flags = without("cluster_key", cluster_key_file=str(tmp_path / "none"))
    assert problems(flags) == [
        f"--cluster-key-file: {tmp_path / 'none'} cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("credential_header", ["X-Tenant"]),
        ("credential_query", False),
        ("affinity_header", ["X-Talk"]),
        ("anonymous", "isolate"),
        ("token_identity", "bytes"),
        ("cluster", "other"),
        ("upstream", "http://127.0.0.1:1/other"),
    ],
)
def test_who_may_meet(option: str, value: object) -> None:
    """Proxies that differ in what tells callers apart are of two clusters."""
    plain: Settings = load(STORE)
    assert namespace_of(load(STORE | {option: value})) != namespace_of(plain)
    assert namespace_of(
        load(STORE | {"idle_timeout": "1s", "upstream": "http://other:2/mcp"})
    ) == namespace_of(plain)
