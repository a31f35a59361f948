"""`make kills` and `make soak`: what takes minutes, with real processes.

python -m tests.survival kills --kills 200 --seed 1 --parties 2 3
python -m tests.survival soak --jobs 100 --at-once 10
"""

import masque.wire  # noqa: F401, I001 - before grpc

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.survival import kills, soak


def main() -> int:
    """Returns the exit code: 1 if something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.survival")
    commands = parser.add_subparsers(dest="command", required=True)
    killing = commands.add_parser("kills", help="kill services at random while jobs train")
    killing.add_argument("--kills", type=int, default=200)
    killing.add_argument("--seed", type=int, default=1)
    killing.add_argument(
        "--parties", type=int, nargs="+", default=[2, 3], help="of each network; kills are divided"
    )
    killing.add_argument("--at-once", type=int, default=3)
    soaking = commands.add_parser("soak", help="many jobs, and what they leave behind")
    soaking.add_argument("--jobs", type=int, default=100)
    soaking.add_argument("--at-once", type=int, default=10)
    for command in (killing, soaking):
        command.add_argument("--directory", type=Path, help="where to keep networks and logs")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="masque-survival-") as directory:
        home = Path(chosen.directory or directory)
        try:
            home.mkdir(parents=True, exist_ok=True)
            if chosen.command == "kills":
                _kill(chosen, home)
            else:
                print("\n".join(soak.run(home, chosen.jobs, chosen.at_once, _say)))
        except AssertionError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


def _kill(chosen: argparse.Namespace, directory: Path) -> None:
    """In one network after the other, each with its part of the kills."""
    begun, count = time.monotonic(), len(chosen.parties)
    print(f"seed {chosen.seed}", flush=True)
    for at, parties in enumerate(chosen.parties):
        part = chosen.kills // count + (at < chosen.kills % count)
        if not part:
            continue
        home = directory / str(at)
        home.mkdir()
        report = kills.run(home, part, chosen.seed + at, parties, at_once=chosen.at_once, say=_say)
        print("\n".join(report.lines()), flush=True)
    print(f"in {time.monotonic() - begun:.0f} s")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
