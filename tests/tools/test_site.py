"""The documents as a site: every page is on it, links lead on, and it can be read and searched anywhere."""

import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from docs.markdown import DOCUMENTS
from e2e.launch import TESTS, chromium, environment, program_environment
from playwright.async_api import Browser, async_playwright, expect

from tools import site

ROOT = TESTS.parent
expect.set_options(timeout=60_000)  # none fails because a busy machine was slow
PHONE = {"width": 360, "height": 740}
# What is not for readers of the site: forms, and what the landing page stands for.
ELSEWHERE = {"README.md"}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and does not tell."""

    def log_message(self, *_: object) -> None:
        pass


def test_every_document_is_on_it() -> None:
    """A page that is not in the table of contents would be found by nobody."""
    listed = {path for path, _ in site.pages()}
    assert {str(path.relative_to(ROOT)) for path in DOCUMENTS} - ELSEWHERE == listed
    assert len({page for _, page in site.pages()}) == len(listed)


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("docs/index.md", "[a](../deploy/README.md)", "[a](deploy.md)"),
        ("docs/index.md", "[a](security.md#x)", "[a](security.md#x)"),
        ("CONTRIBUTING.md", "[a](docs/architecture.md)", "[a](architecture.md)"),
        ("deploy/README.md", "[a](../docs/metrics.md)", "[a](metrics.md)"),
        ("docs/x.md", "[a](../README.md)", "[a](index.md)"),
        ("docs/x.md", "[a](https://example.com/docs/x.md)", "[a](https://example.com/docs/x.md)"),
        ("docs/x.md", "![a](churn.svg)", "![a](churn.svg)"),
        ("deploy/README.md", "```\n[a](../docs/metrics.md)\n```\n", "```\n[a](../docs/metrics.md)\n```\n"),
    ],
)
def test_links(path: str, text: str, expected: str) -> None:
    """Links between documents lead to where their pages are on the site; code is left alone."""
    assert site.rewrite(path, text) == expected


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly."""
    environment("site")
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder) == 0
    return folder / "site"


@pytest.mark.e2e
def test_strict(tmp_path: Path) -> None:
    """A link that leads nowhere fails the build."""
    site.gather(tmp_path)
    page = tmp_path / "pages" / "sharing.md"
    page.write_text(page.read_text() + "\n[gone](no-such-page.md)\n")
    command = [str(environment("site") / "bin" / "mkdocs"), "build", "--clean", "--strict"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0


@pytest.mark.e2e
def test_links_of_the_pages(built: Path) -> None:
    """Every link and picture of every page leads to a file of the site, and to a heading of it."""
    pages = {path: path.read_text() for path in built.rglob("*.html") if path.name != "404.html"}
    assert len(pages) == len(list(site.pages()))
    for path, text in pages.items():
        for target in re.findall(r'(?:href|src)="?([^" >]+)', text):
            if target.startswith(("http:", "https:", "data:", "mailto:", "javascript:")):
                continue
            name, _, anchor = target.partition("#")
            name = name.partition("?")[0]
            file = (path.parent / name).resolve() if name else path
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{path.relative_to(built)}: {target}"
            if anchor and file in pages and not anchor.startswith("__"):
                assert re.search(rf'id="?{re.escape(anchor)}["\s>]', pages[file]), f"{path}: {target}"


@pytest.fixture
def address(built: Path) -> Iterator[str]:
    """The site, as a browser gets it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """Debian's Chromium, headless."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=chromium(),
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
            ],
            env=program_environment(tmp_path / "chromium"),  # type: ignore[arg-type]
        )
        yield running
        await running.close()


@pytest.mark.e2e
async def test_in_a_browser(browser: Browser, address: str) -> None:
    """The landing page shows both clients and leads on; search finds an option; nobody else is asked."""
    page = await browser.new_page()
    asked: set[str] = set()
    page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    await page.goto(address)
    await expect(page.get_by_role("img").first).to_be_visible()
    await expect(page.get_by_text("mcp-session-proxy serve http://127.0.0.1:8000/mcp").first).to_be_visible()
    await page.get_by_role("article").get_by_role("link", name="Quick start, by client").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Quick start"))
    # Key by key, as people do: the page looks at what is typed when a key is let go of.
    await page.get_by_role("textbox", name="Search").press_sequentially("max-json-depth")
    found = page.locator(".md-search-result__link")
    await expect(found.filter(has_text=re.compile("max-json-depth")).first).to_be_visible()
    assert {each for each in asked if not each.startswith("blob:")} <= {address, "data:"}


@pytest.mark.e2e
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_on_a_phone(browser: Browser, address: str, scheme: str) -> None:
    """At a phone's width nothing sticks out, and the page is as dark as the phone is."""
    context = await browser.new_context(
        viewport=PHONE,  # type: ignore[arg-type]
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = await context.new_page()
    for name in ("index", "quickstart", "configuration", "security", "benchmarks", "deploy", "clients"):
        await page.goto(f"{address}/{name}.html")
        wide = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{name} is {wide} pixels too wide"
    (red, green, blue) = await page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)"
    )
    assert (red + green + blue < 3 * 128) is (scheme == "dark")
