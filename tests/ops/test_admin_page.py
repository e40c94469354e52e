"""The status page's files: whole, understood by browsers, and sufficient to themselves."""

import re
import subprocess
from importlib.resources import files

import pytest
from e2e.launch import node

from mcp_session_proxy.ops import admin

PAGE = files(admin) / "page"
HTML = (PAGE / "index.html").read_text()
SCRIPT = (PAGE / "page.js").read_text()
STYLE = (PAGE / "page.css").read_text()


@pytest.mark.e2e
def test_the_script_can_be_parsed():
    """By a JavaScript engine, as the module that it is."""
    command = [node(), "--check", "--input-type=module"]
    done = subprocess.run([*command, "-"], input=SCRIPT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    broken = subprocess.run([*command, "-"], input=SCRIPT + "}", capture_output=True, text=True, check=False)
    assert broken.returncode != 0


def test_every_element_that_is_looked_for_is_there():
    """The script finds elements by their ids; each of them is in the page, once."""
    wanted = set(re.findall(r'\$\("([\w-]+)"\)', SCRIPT)) | {"upstream-count", "clients-count"}
    found = re.findall(r'\bid="([\w-]+)"', HTML)
    assert wanted <= set(found)
    assert len(found) == len(set(found))


def test_every_name_is_of_something():
    """Labels and descriptions point at elements that are there."""
    found = set(re.findall(r'\bid="([\w-]+)"', HTML))
    pointed = re.findall(r'\b(?:for|aria-labelledby|aria-describedby)="([^"]+)"', HTML)
    assert pointed
    assert {name for names in pointed for name in names.split()} <= found


@pytest.mark.parametrize("text", [HTML, SCRIPT, STYLE], ids=["html", "js", "css"])
def test_nothing_comes_from_elsewhere(text):
    """No other host, no inline script or style: the policy would refuse them."""
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text) == []
    assert re.findall(r"\son\w+=|\sstyle=|<style|innerHTML|insertAdjacentHTML|\beval\b", text) == []


def test_is_small():
    """It has to come fast from a machine that is in trouble."""
    assert len(HTML + SCRIPT + STYLE) < 64 * 1024
