"""Running ``layrfs`` as a person does: a program with a state directory of its own, exit codes and sentences."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


@dataclass
class Shell:
    """Runs ``layrfs`` with a state directory of its own."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LAYRFS_")}
        return {**inherited, "LAYRFS_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY), **self.variables}

    def run(self, *arguments: str, module: str = "main", text: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", f"layrfs.cli.{module}", *arguments],
            env=self.environment(),
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            input=text,
            start_new_session=True,
            check=False,
            timeout=240,
        )
        assert "Traceback" not in done.stderr
        return done

    def fails(self, code: int, words: str, *arguments: str, module: str = "main") -> None:
        """With this exit code and one sentence that has these words in it."""
        done = self.run(*arguments, module=module)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def succeeds(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout
