"""Serving on sockets that listen, and announcing their addresses."""

import contextlib
import json
import os
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from ..downstream.tls_site import TlsSite
from .sockets import BACKLOG, Bound, CannotStart

MakeSite = Callable[..., web.BaseSite]
_PLAIN_SITE: Final[MakeSite] = partial(web.SockSite, backlog=BACKLOG)


async def open_sites(
    stack: contextlib.AsyncExitStack,
    runner: web.BaseRunner,
    bound: Bound,
    *,
    make_site: MakeSite = _PLAIN_SITE,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve on the sockets of a listener, until ``stack`` is closed."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for listening in bound.sockets:
        await make_site(runner, listening, ssl_context=tls).start()


async def cease(*runners: web.BaseRunner) -> None:
    """Accept no further connections. Those that were accepted are served, and TLS handshakes go on."""
    for runner in runners:
        for site in list(runner.sites):
            if isinstance(site, TlsSite):
                site.shut()
            else:
                await site.stop()


def announce(path: Path, *, listen: str, endpoint: str, admin: str | None) -> None:
    """Write the URLs as JSON to a file (``--announce``), whole or not at all.

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
