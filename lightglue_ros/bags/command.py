"""Matches bags: gives each its turn, shows how far the run is, and prints a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from tabulate import tabulate

from lightglue_ros.bags.bag_job import BagJob
from lightglue_ros.bags.chunks import hash_model
from lightglue_ros.bags.engines import Engine
from lightglue_ros.bags.matched_bag import Output
from lightglue_ros.bags.progress import Progress
from lightglue_ros.core.files import require_file_name, require_parent_folder, write_whole
from lightglue_ros.core.video_files import SUFFIX as VIDEO_SUFFIX
from lightglue_ros.core.video_files import require_video_name
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bags import STORAGES
from lightglue_ros.rosdata.masks import camera_masks
from lightglue_ros.rosdata.parameters import MatcherParameters

_HEADER = ("bag", "frames", "pairs", "missing", "matches per pair", "images rejected", "output")
_ALIGNMENT = ("left", *["right"] * 5, "left")


def match_bags(
    bags: Sequence[tuple[Path, ...]],
    output: Output,
    settings: MatcherParameters,
    engine: Engine,
    json_file: Path | None = None,
    video: Path | None = None,
) -> int:
    """Match bags and print a table; returns the exit status, 0 if nothing was left out.

    Args:
        bags: folders of rosbag2, or .db3 or .mcap files; several at a place together hold the rig.
        output: the wanted output; with several bags its path is a folder of bags.
        settings: the parameters of the node.
        engine: runs the work; it is closed if the user interrupts.
        json_file: file for the table and all that was found out.
        video: file of a video of the matches; with several bags a folder of videos.

    Raises:
        ConfigError: the arguments cannot be used.
        ModelError: the model is missing.
    """
    if json_file is not None:
        require_file_name(json_file)
    with closing(Progress()) as progress:
        jobs = _jobs(bags, output, settings, progress, video)
        # As many bags at a time as the engine has workers, so that none of them waits for work.
        with ThreadPoolExecutor(engine.workers) as threads:
            running = [threads.submit(job.run, engine) for job in jobs]
            try:
                wait(running)
            except KeyboardInterrupt:
                for future in running:
                    future.cancel()
                engine.close()
                progress.log("interrupted; the same command goes on from here")
                raise
    done = [job for job in jobs if job.summary is not None]
    if done:
        progress.log_rate()
        rows = [_row(job) for job in jobs]
        print(tabulate(rows, _HEADER, "plain", colalign=_ALIGNMENT, disable_numparse=True), flush=True)
    for job in done:
        for pair, errors in job.summary.row_errors.items():
            figures = f"row error p50 {errors['p50']:.2f} px, p95 {errors['p95']:.2f} px"
            print(f"bag {job.name}: pair {pair}: {figures}", flush=True)
        for finding in job.summary.findings:
            print(f"bag {job.name}: {finding}", flush=True)
    if json_file is not None:
        write_whole(json_file, json.dumps([_to_json(job) for job in jobs], indent=2).encode())
    return int(len(done) < len(jobs) or not all(job.summary.is_complete for job in done))


def _jobs(
    bags: Sequence[tuple[Path, ...]],
    output: Output,
    settings: MatcherParameters,
    progress: Progress,
    video: Path | None,
) -> list[BagJob]:
    if settings.takes_features or not settings.publish_matches:
        raise ConfigError(
            "a bag is matched by its images, and the parameters are not those of a matcher of images",
            allowed="input: images and publish_matches: true",
        )
    if output.storage not in (None, *STORAGES):
        raise ConfigError(f"--storage is '{output.storage}'", allowed=", ".join(STORAGES))
    bags = [tuple(path.expanduser() for path in paths) for paths in bags]
    output = replace(output, path=output.path.expanduser())
    require_parent_folder(output.path)
    if video is not None:
        video = video.expanduser()
        require_parent_folder(video)
        if len(bags) == 1:
            require_video_name(video)
    folder, sha256 = hash_model(settings.model)
    # Processes and computers that match may have other working folders.
    masks = [file and str(Path(file).expanduser().absolute()) for file in settings.mask_files]
    settings = replace(settings.with_absolute_references(), model=str(folder), mask_files=masks)
    camera_masks(settings, [])  # so that a wrong file ends the run before its work
    if len(bags) == 1:
        return [BagJob(bags[0], output, settings, sha256, progress, video)]
    names = [_name(path) for path, *_ in bags]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ConfigError(
            f"several bags have the name {name}", allowed="bags of different names", fix="match them apart"
        )
    output.path.mkdir(exist_ok=True)
    if video is not None:
        video.mkdir(exist_ok=True)
    return [
        BagJob(
            paths,
            replace(output, path=output.path / name),
            settings,
            sha256,
            progress,
            None if video is None else video / f"{name}{VIDEO_SUFFIX}",
        )
        for paths, name in zip(bags, names, strict=True)
    ]


def _name(bag: Path) -> str:
    bag = bag.absolute()
    return bag.name.removesuffix(".zstd").rpartition(".")[0] if bag.is_file() else bag.name


def _row(job: BagJob) -> tuple[object, ...]:
    done = job.summary
    if done is None:
        return job.name, *"-----", "failed, see above"
    matched = done.pairs - done.missing
    mean = f"{done.matches / matched:.1f}" if matched else "-"
    rejected = f"{done.rejected} of {done.images}"
    return job.name, done.frames, done.pairs, done.missing, mean, rejected, job.output.path


def _to_json(job: BagJob) -> dict[str, object]:
    about = {"bags": list(map(str, job.bags)), "output": str(job.output.path), "error": job.error}
    return about if job.summary is None else {**about, **asdict(job.summary)}
