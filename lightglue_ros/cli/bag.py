"""`lightglue_ros bag`: match recorded bags."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from lightglue_ros.cli.arguments import positive


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    command.description = (
        "Matches recorded rosbag2 as the node would have, and writes them again with /matches. "
        "No frame is dropped. The same command goes on where it was interrupted."
    )
    add = command.add_argument
    add("bags", nargs="+", type=Path, metavar="BAG", help="folders, .db3 or .mcap files")
    together = "the bags together hold one rig, such as a bag for each camera: one output"
    add("--together", action="store_true", help=together)
    output = "folder of the new bag; with several bags a folder for all of them"
    add("-o", "--output", type=Path, required=True, metavar="OUT", help=output)
    file = "rig, pairs and model, in the file that the node reads"
    add("--params-file", type=Path, metavar="YAML", help=file)
    param = "a parameter of the node, which replaces the file's; may be repeated"
    add("-p", "--param", action="append", default=[], metavar="NAME:=VALUE", help=param)
    add("--matches-only", action="store_true", help="leave out the messages of the input")
    add("--storage", metavar="KIND", help="sqlite3 or mcap (that of the input)")
    video = "write a video of all pairs too (.mp4); with several bags a folder for all of them"
    add("--video", type=Path, metavar="FILE", help=video)
    add("--json", type=Path, metavar="FILE", help="write the table and what was left out of each bag")
    jobs = "tasks at once (1, or with Ray one per core of the cluster; on GPUs one per GPU)"
    add("--jobs", type=positive, metavar="N", help=jobs)
    add("--engine", default="processes", help="processes, or ray for a cluster (processes)")


def run(arguments: argparse.Namespace) -> int:
    """Match the bags and print a table."""
    from lightglue_ros.bags.command import match_bags
    from lightglue_ros.bags.engines import make_engine
    from lightglue_ros.bags.matched_bag import Output
    from lightglue_ros.cli.export import ensure_model
    from lightglue_ros.rosdata.parameter_files import read_file

    settings = read_file(arguments.params_file, arguments.param)
    ensure_model(settings.model)
    output = Output(arguments.output, arguments.matches_only, arguments.storage)
    bags = [tuple(arguments.bags)] if arguments.together else [(bag,) for bag in arguments.bags]
    with closing(make_engine(arguments.engine, arguments.jobs, settings.provider)) as engine:
        return match_bags(bags, output, settings, engine, arguments.json, arguments.video)
