"""Matches bags: spreads their tasks over an engine, shows how far it is, and sums up."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lightglue_ros.bags.engines import Engine
from lightglue_ros.bags.job import BagJob, Output
from lightglue_ros.bags.work import ChunkTask, Task, split_model
from lightglue_ros.cli.progress import Progress
from lightglue_ros.core.files import require_parent_folder
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bags import STORAGES
from lightglue_ros.rosdata.parameters import MatcherSettings

# So often a task is begun; its worker may have died by chance, or the task is too much for the machine.
MOST_TRIES = 3


def run(bags: Sequence[Path], output: Output, settings: MatcherSettings, engine: Engine) -> int:
    """Match bags and print a table; the exit status is 0 if all of them are done.

    Args:
        bags: folders of rosbag2, or .db3 or .mcap files.
        output: what is written; with several bags its path is a folder of bags.
        settings: of the matcher.
        engine: does the work.

    Raises:
        ConfigError: nothing can be begun.
        ModelError: there is no such model.
    """
    progress = Progress("frames", logs=True)

    def tell(line: str) -> None:
        progress.clear()
        print(line, file=sys.stderr, flush=True)

    jobs = _jobs(bags, output, settings, tell)
    try:
        _work(jobs, engine, progress)
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on from here")
        raise
    finally:
        for job in jobs:
            job.release()
    if any(job.failure is None for job in jobs):
        progress.end()
        _print_table(jobs)
    return int(any(job.failure is not None for job in jobs))


def _jobs(
    bags: Sequence[Path], output: Output, settings: MatcherSettings, tell: Callable[[str], None]
) -> list[BagJob]:
    values = settings.values
    if values.takes_features or not values.publish_matches:
        raise ConfigError(
            "a bag is matched by its images, and the parameters are not those of a matcher of images",
            allowed="input: images and publish_matches: true",
        )
    if output.storage not in (None, *STORAGES):
        raise ConfigError(f"--storage is '{output.storage}'", allowed=", ".join(STORAGES))
    require_parent_folder(output.path)
    folder, sha256 = split_model(values.model)
    settings = replace(settings, values=replace(values, model=str(folder)))
    if len(bags) == 1:
        return [BagJob(bags[0], output, settings, sha256, tell)]
    names = [bag.absolute().stem if bag.is_file() else bag.absolute().name for bag in bags]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ConfigError(
            f"several bags have the name {twice[0]}",
            allowed="bags of different names",
            fix="match them apart",
        )
    output.path.mkdir(exist_ok=True)
    return [
        BagJob(bag, replace(output, path=output.path / name), settings, sha256, tell)
        for bag, name in zip(bags, names, strict=True)
    ]


@dataclass
class _Item:
    """A task of a bag, and how often it was begun."""

    job: BagJob
    task: Task
    tries: int = 0


def _work(jobs: Sequence[BagJob], engine: Engine, progress: Progress) -> None:
    """Do the tasks of all bags; those of a bag that was begun go before the next bag's."""
    queue = deque(_Item(job, task) for job in jobs for task in job.begin(engine.num_threads))
    running: dict[int, _Item] = {}
    while queue or running:
        while queue and engine.room > 0:
            item = queue.popleft()
            if item.job.failure is None:
                item.tries += 1
                running[id(item.task)] = item
                engine.start(item.task)
        if not running:
            continue
        task, outcome = engine.wait()
        item = running.pop(id(task))
        if outcome.worker_died and item.tries < MOST_TRIES:
            queue.appendleft(item)
            continue
        following = [_Item(item.job, task) for task in item.job.take(task, outcome)]
        queue.extendleft(reversed(following))
        is_matched = isinstance(task, ChunkTask) and outcome.result is not None
        frames = task.last - task.first if is_matched else 0
        progress.total = progress.done + frames + sum(job.frames_left() for job in jobs)
        if len(jobs) > 1:
            progress.note = f", {sum(job.is_over for job in jobs)} of {len(jobs)} bags done"
        progress.add(frames)


def _print_table(jobs: Sequence[BagJob]) -> None:
    header = ("bag", "frames", "pairs", "missing", "matches a pair", "images rejected", "output")
    rows = [header, *map(_row, jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        cells = [
            cell.rjust(width) if 0 < column < 6 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)


def _row(job: BagJob) -> tuple[str, ...]:
    of = job.summary
    if job.failure is not None or of is None:
        return (str(job.bag), *"-----", "failed, see above")
    matched = of.pairs - of.missing
    return (
        str(job.bag),
        str(of.frames),
        str(of.pairs),
        str(of.missing),
        f"{of.matches / matched:.1f}" if matched else "-",
        f"{of.rejected} of {of.images}",
        str(job.output.path),
    )
