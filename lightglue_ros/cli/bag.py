"""`lightglue_ros bag`: match recorded bags."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

from lightglue_ros.cli.arguments import positive


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    command.description = (
        "Matches recorded rosbag2 as the node would have, and writes them again with /matches. "
        "No frame is dropped. The same command goes on where it was interrupted."
    )
    command.add_argument("bags", nargs="+", type=Path, metavar="BAG", help="folders, .db3 or .mcap files")
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder of the new bag; with several bags a folder for all of them",
    )
    command.add_argument(
        "--params-file",
        type=Path,
        metavar="YAML",
        help="rig, pairs and model, in the file that the node reads",
    )
    command.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="a parameter of the node, which replaces the file's; may be repeated",
    )
    command.add_argument("--matches-only", action="store_true", help="leave out the messages of the input")
    command.add_argument("--storage", metavar="KIND", help="sqlite3 or mcap (that of the input)")
    command.add_argument(
        "--jobs", type=positive, metavar="N", help="tasks at once (1; with Ray one per core of the cluster)"
    )
    command.add_argument("--engine", default="processes", help="processes, or ray for a cluster (processes)")


def run(arguments: argparse.Namespace) -> int:
    """Match the bags and print a table."""
    from lightglue_ros.bags.command import match_bags
    from lightglue_ros.bags.engines import make_engine
    from lightglue_ros.bags.matched_bag import Output
    from lightglue_ros.cli.models import ensure_model
    from lightglue_ros.rosdata.parameter_files import read_file

    settings = read_file(arguments.params_file, arguments.param)
    ensure_model(settings.model, lambda line: print(line, file=sys.stderr, flush=True))
    output = Output(arguments.output, arguments.matches_only, arguments.storage)
    with closing(make_engine(arguments.engine, arguments.jobs)) as engine:
        return match_bags(arguments.bags, output, settings, engine)
