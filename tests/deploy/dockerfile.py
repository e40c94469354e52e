"""Reads a Dockerfile as far as ours goes: stages of instructions, with ARG and ENV filled in."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Stage:
    """What one FROM begins."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every such instruction, in order."""
        return [text for name, text in self.steps if name == instruction]

    def command(self, instruction: str) -> list[str]:
        """The one exec-form argument of an instruction."""
        (text,) = self.all(instruction)
        words: list[str] = json.loads(text)
        return words

    def healthcheck(self) -> list[str]:
        """The command of the health check."""
        (text,) = self.all("HEALTHCHECK")
        words: list[str] = json.loads(text[text.index("CMD") + 3 :])
        return words


def read(path: Path) -> list[Stage]:
    """The stages of a Dockerfile."""
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for instruction, text in _instructions(path.read_text()):
        filled = text if instruction == "RUN" else _fill(text, arguments)
        if instruction == "ARG":
            name, _, default = filled.partition("=")
            arguments[name] = default
        elif instruction == "FROM":
            stages.append(Stage(filled))
        if stages:
            stages[-1].steps.append((instruction, filled))
    return stages


def variables(stage: Stage, inherited: dict[str, str]) -> dict[str, str]:
    """The environment of a stage, from what its base image gives it."""
    found = dict(inherited)
    for text in stage.all("ENV"):
        for name, value in re.findall(r'(\w+)=("[^"]*"|\S+)', text):
            found[name] = _fill(value.strip('"'), found)
    return found


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            yield name, rest.strip()


def _fill(text: str, values: dict[str, Any]) -> str:
    """``$NAME`` and ``${NAME}`` by their values; unknown ones stay."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)
