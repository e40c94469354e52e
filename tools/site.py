"""The documents as a site: ``make site`` builds it into build/site.

The pages are the Markdown files as they are, which read as well on a code host. They are gathered into one
folder, for some of them live beside ``docs/``; links between them are written anew for where they are then.
The generator is strict: a link that leads nowhere fails the build, and so does a page that is not in the
table of contents here.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
GENERATOR: Final = ROOT / ".envs" / "site" / "bin" / "mkdocs"
BUILD: Final = ROOT / "build"

# The table of contents: files as they are in the project.
CONTENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "Begin": {
        "Overview": "docs/index.md",
        "Quick start, by client": "docs/quickstart.md",
        "Do I need it?": "docs/check.md",
        "Comparison": "docs/comparison.md",
        "Clients": "docs/clients.md",
        "Servers": "docs/servers.md",
    },
    "Use": {
        "Sharing": "docs/sharing.md",
        "Tasks and other extensions": "docs/tasks.md",
        "Options": "docs/configuration.md",
        "Security": "docs/security.md",
        "Reliability": "docs/reliability.md",
        "The last soak": "docs/soak.md",
        "A large cluster, played": "docs/simulation.md",
        "Benchmarks": "docs/benchmarks.md",
    },
    "Operate": {
        "In production": "deploy/README.md",
        "Status page and admin API": "docs/admin.md",
        "Metrics": "docs/metrics.md",
        "Log events": "docs/events.md",
        "Tracing": "docs/tracing.md",
        "Upgrading": "docs/upgrading.md",
        "An event store of your own": "docs/event-store.md",
        "Several proxies": "docs/scaling.md",
        "Troubleshooting": "docs/troubleshooting.md",
    },
    "Take part": {
        "How it is built": "docs/architecture.md",
        "Contributing": "CONTRIBUTING.md",
        "Reporting a vulnerability": "SECURITY.md",
        "Code of conduct": "CODE_OF_CONDUCT.md",
        "Changelog": "CHANGELOG.md",
    },
}
# What the landing page stands for on the site.
_SAME: Final = {"README.md": "docs/index.md"}
# There is another page of this name.
_NAMED: Final = {"SECURITY.md": "reporting.md"}

_LINK: Final = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_FENCE: Final = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)

# Fragments as code hosts make them, so that links lead to the same headings here and there.
_SLUGS: Final = '!!python/object/apply:pymdownx.slugs.slugify {"kwds": {"case": "lower"}}'
# JSON is YAML, so nothing else has to be written as YAML by hand.
_CONFIGURATION: Final = {
    "site_name": "mcp-session-proxy",
    "site_description": "Stateful MCP servers for stateless MCP clients, with neither of them changed",
    "docs_dir": "pages",
    "site_dir": "site",
    # Pictures stay beside the pages, as they are in the project, and pages can be read without a server.
    "use_directory_urls": False,
    "extra_css": ["site.css"],
    "plugins": ["search"],
    "markdown_extensions": [
        "tables",
        "fenced_code",
        "attr_list",
        {"toc": {"permalink": True, "slugify": "SLUGS"}},
    ],
    # Each of these is an error, as the build is strict.
    "validation": {
        "nav": {"omitted_files": "warn", "not_found": "warn"},
        "links": {"not_found": "warn", "anchors": "warn", "unrecognized_links": "warn"},
    },
    "theme": {
        "name": "material",
        "language": "en",
        # Readers' browsers ask nobody else for letters.
        "font": False,
        "features": ["navigation.sections", "navigation.top", "content.code.copy", "search.highlight"],
        "palette": [
            {
                "media": "(prefers-color-scheme: light)",
                "scheme": "default",
                "toggle": {"icon": "material/weather-sunny", "name": "Dark"},
            },
            {
                "media": "(prefers-color-scheme: dark)",
                "scheme": "slate",
                "toggle": {"icon": "material/weather-night", "name": "Light"},
            },
        ],
    },
}


def pages() -> Iterator[tuple[str, str]]:
    """Each document's path in the project, and that of its page."""
    for section in CONTENTS.values():
        for path in section.values():
            yield path, page_of(path)


def page_of(path: str) -> str:
    """Where a document is on the site, by its path in the project."""
    path = _SAME.get(path, path)
    if path in _NAMED:
        return _NAMED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path.removesuffix("/README.md").removesuffix(".md").lower().replace("_", "-") + ".md"


def rewrite(path: str, text: str) -> str:
    """The text of a document with its links to others as they are between their pages."""
    known = {*dict(pages()), *_SAME}
    here = PurePosixPath(path).parent

    def link(found: re.Match[str]) -> str:
        before, target, anchor, after = found.groups(default="")
        if "://" in target:
            return found[0]
        meant = os.path.normpath(here / target)
        return f"{before}{page_of(meant) if meant in known else target}{anchor}{after}"

    # Code stays as it is.
    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def gather(folder: Path) -> None:
    """Write configuration, pages and pictures to a folder."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    (folder / "pages").mkdir(parents=True)
    for path, page in pages():
        (folder / "pages" / page).write_text(rewrite(path, (ROOT / path).read_text(encoding="utf-8")))
    for picture in [*(ROOT / "docs").glob("*.svg"), *(ROOT / "docs").glob("*.png")]:
        shutil.copy(picture, folder / "pages")
    shutil.copy(ROOT / "tools" / "site.css", folder / "pages")
    nav = [
        {section: [{title: page_of(path)} for title, path in entries.items()]}
        for section, entries in CONTENTS.items()
    ]
    configuration = json.dumps({**_CONFIGURATION, "nav": nav}, indent=2)
    (folder / "mkdocs.yml").write_text(configuration.replace('"SLUGS"', _SLUGS))


def build(folder: Path = BUILD) -> int:
    """Build the site into ``site`` in a folder; gives the generator's exit status."""
    gather(folder)
    shutil.rmtree(folder / "site", ignore_errors=True)
    # What the generator says of other generators is no fault of a document.
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [str(GENERATOR), "build", "--clean", "--strict", "--quiet"]
    return subprocess.run(command, cwd=folder, env=quiet, check=False).returncode


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build the documents as a site.")
    parser.add_argument("action", choices=["build"])
    parser.parse_args()
    return build()


if __name__ == "__main__":
    sys.exit(main())
