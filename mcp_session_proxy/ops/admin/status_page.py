"""The status page: files that are served as they are, to browsers. Others find a plain index at ``/``."""

import hashlib
from importlib.resources import files
from typing import Final

from aiohttp import ETag, web

from ... import __version__
from .answers import DEFAULT_LIMIT
from .runbook import runbook

_TYPES: Final = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "runbook.css": "text/css",
}
_HTML: Final = "text/html"

_INDEX: Final = f"""\
mcp-session-proxy {__version__}

/metrics    for Prometheus
/healthz    200 while the process lives
/readyz     200 while requests can be served, else 503
/sessions   the sessions held now, newest first (?limit={DEFAULT_LIMIT})
/api/v1     the admin API; /api/v1/openapi.json describes it
/runbook    what to do about each problem
/           in a browser: the status page
"""


class StatusPage:
    """The page's files, read once."""

    def __init__(self) -> None:
        folder = files(__package__) / "page"
        self._bodies = {name: (folder / name).read_bytes() for name in _TYPES}

    def routes(self) -> list[web.RouteDef]:
        """Which file is where."""
        return [
            web.get("/", self.index),
            web.get("/runbook", self.runbook),
            web.get(f"/{{name:{'|'.join(list(_TYPES)[1:])}}}", self.file),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """``/``: the page for browsers, what there is for everybody else."""
        vary = {"Vary": "Accept"}
        if _HTML not in request.headers.get("Accept", ""):
            return web.Response(text=_INDEX, headers=vary)
        return self._respond(request, "index.html", vary)

    async def runbook(self, _request: web.Request) -> web.Response:
        """``/runbook``: what to do about each problem."""
        return web.Response(text=runbook(), content_type=_HTML)

    async def file(self, request: web.Request) -> web.Response:
        """What the page is made of."""
        return self._respond(request, request.match_info["name"], {})

    def _respond(self, request: web.Request, name: str, headers: dict[str, str]) -> web.Response:
        body = self._bodies[name]
        tag = ETag(hashlib.sha256(body).hexdigest()[:16])
        # The browser asks each time, and is told at once when it has the file.
        headers = {**headers, "Cache-Control": "no-cache"}
        if any(known.value == tag.value for known in request.if_none_match or ()):
            response = web.Response(status=304, headers=headers)
        else:
            response = web.Response(body=body, content_type=_TYPES[name], charset="utf-8", headers=headers)
        response.etag = tag
        return response
