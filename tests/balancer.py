"""A real nginx with the project's own configuration: each request goes to the next proxy, whoever sends it.

It is the file of the compose example with other addresses in it, so what is shown with it holds of that.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from key_value_server import unused_port

CONFIGURATION = Path(__file__).resolve().parent.parent / "deploy" / "cluster" / "nginx.conf"
_PATH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
# Beside what the file says: where this one may write.
_HERE = """
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
"""


def nginx() -> str | None:
    """Debian's nginx, if it is installed."""
    return shutil.which("nginx", path=_PATH)


def command(folder: Path, listen: str, proxies: Sequence[str]) -> list[str]:
    """The command that runs it in a folder of its own, with these addresses behind it."""
    program = nginx()
    assert program is not None, "nginx is not installed: run `make envs`"
    folder.mkdir(exist_ok=True)
    file = folder / "nginx.conf"
    file.write_text(configuration(folder, listen, proxies))
    user = "user root; " if os.geteuid() == 0 else ""  # its folder is of this user alone
    said = f"{user}daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;"
    return [program, "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log"), "-g", said]


def configuration(folder: Path, listen: str, proxies: Sequence[str]) -> str:
    """The project's file, with other addresses in it."""
    text = CONFIGURATION.read_text()
    lines = re.findall(r"^ *server proxy\d:8080(.*)$", text, re.M)
    assert lines, "the file does not look as it did"
    servers = "\n".join(f"        server {proxy}{lines[0]}" for proxy in proxies)
    text = re.sub(r"(^ *server proxy\d:8080.*\n)+", f"{servers}\n", text, flags=re.M)
    text = text.replace("listen 8080;", f"listen {listen};")
    return text.replace("http {", "http {" + _HERE.format(folder=folder), 1)


@contextlib.asynccontextmanager
async def running(folder: Path, proxies: Sequence[str], prefix: Sequence[str] = ()) -> AsyncIterator[str]:
    """The balancer in front of these addresses, for as long as it is needed; its origin."""
    port = unused_port()
    words = [*prefix, *command(folder, f"127.0.0.1:{port}", proxies)]
    process = await asyncio.create_subprocess_exec(*words)
    try:
        async with asyncio.timeout(30):
            while not await _takes_connections(port):
                assert process.returncode is None, (folder / "error.log").read_text()
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _takes_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
