"""Commands of `masque`, run in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from masque.client.app import main


@dataclass
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The error line, without its prefix."""
        assert "Traceback" not in self.err
        return self.err.splitlines()[0].removeprefix("error: ")


class Shell:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Answer:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        return Answer(code, out, err)


def share(masque: Shell, files: Path, name: str, *more: str) -> Answer:
    schema = files / "schema.yaml"
    return masque("share", files / f"{name}.csv", "--schema", schema, "--name", name, *more)
