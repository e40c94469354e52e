"""Where the proxy listens, and whom it tells of that."""

import contextlib
import json
import os
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from ..settings.values import Address, hide_user


class CannotStart(Exception):
    """Something outside is in the way. The text says which option to change."""

    def __init__(self, text: str) -> None:
        super().__init__(hide_user(text))


class CannotListen(CannotStart):
    """A listener's address is taken or not ours."""


class Sites:
    """The addresses that are listened on, until ``stack`` is closed."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    async def open(
        self,
        runner: web.BaseRunner,
        address: Address,
        option: str,
        *,
        make_site: Callable[..., web.BaseSite] = web.TCPSite,
        tls: ssl.SSLContext | None = None,
    ) -> str:
        """Listen on the address that this option names; gives the URL with the port that it has become.

        Raises:
            CannotListen: the address is taken or not ours.
        """
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = make_site(runner, address.host or None, address.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {address} ({error.strerror or error}); "
                f"choose another address with {option}"
            ) from error
        port = runner.addresses[0][1]
        host = address.host or "0.0.0.0"
        return f"{'http' if tls is None else 'https'}://{Address(host, port)}"


def announce(path: Path, *, listen: str, endpoint: str, admin: str | None) -> None:
    """Write the URLs to a file, whole or not at all, for whoever started us.

    Raises:
        CannotStart: the file cannot be written.
    """
    text = json.dumps({"listen": listen, "endpoint": endpoint, "admin": admin})
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise CannotStart(f"cannot write {path} ({error.strerror}); see --announce") from error
