"""The admin listener: what operators and their machines read, and what operators may change.

``app`` puts it together; ``pages`` is for machines that watch, ``api`` for programs and the status page,
``page`` the status page itself, ``access`` who may change something, ``openapi`` the API's description.
Nothing secret is shown.
"""

from .app import build_admin_app

__all__ = ["build_admin_app"]
