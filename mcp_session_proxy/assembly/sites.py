"""Who is served on the sockets that listen, and who is told where that is."""

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
    """Serve those who connect to a listener's sockets, until ``stack`` is closed."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    for listening in bound.sockets:
        await make_site(runner, listening, ssl_context=tls).start()


async def cease(*runners: web.BaseRunner) -> None:
    """Accept nobody any more; who has been accepted is served as ever, and handshakes under way go on."""
    for runner in runners:
        for site in list(runner.sites):
            if isinstance(site, TlsSite):
                site.shut()
            else:
                await site.stop()


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
