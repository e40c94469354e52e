"""The admin listener: what operators and their machines read, and what operators may change.

``app`` puts it together; ``pages`` is for machines that watch, ``api`` for programs and the status page,
``status_page`` is the page itself, with its files in ``page/``; ``access`` says who may change something,
``openapi`` what the API is. Nothing secret is shown.
"""

from .app import build_admin_app

__all__ = ["build_admin_app"]
