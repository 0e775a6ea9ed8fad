"""Matches one bag: indexes its frames, matches them in chunks, writes the matched bag."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import CancelledError, as_completed
from dataclasses import asdict, replace
from pathlib import Path

from lightglue_ros import __version__
from lightglue_ros.bags.chunks import ChunkSource, match_chunk
from lightglue_ros.bags.engines import Engine, attempt
from lightglue_ros.bags.frame_index import FrameIndex, build_frame_index
from lightglue_ros.bags.matched_bag import Output, Summary, read_summary, write_matched_bag
from lightglue_ros.bags.progress import Progress
from lightglue_ros.bags.work_folder import WorkFolder, locked_work_folder
from lightglue_ros.errors import ConfigError
from lightglue_ros.rosdata.bag_recovery import recover
from lightglue_ros.rosdata.bags import BrokenBagError, storage_files
from lightglue_ros.rosdata.parameters import MatcherParameters

# A chunk is several times as long as the past of its pairs, because that may have to be extracted again.
FRAMES_PER_CHUNK = 16
FRAMES_PER_FRAME_BACK = 8
# Parameters that do not change the matches; of the model the files count.
_WITHOUT_EFFECT = {"model", "num_threads", "drawing_rate", "image_qos", "autostart"}


class BagJob:
    """Matches one bag and writes it.

    Args:
        bag: folder of a rosbag2, or its .db3 or .mcap file.
        output: the wanted output.
        settings: the matcher's settings.
        model_sha256: see `hash_model`.
        progress: shows frames and lines to the user.

    Attributes:
        summary: None unless the bag is done.
    """

    def __init__(
        self, bag: Path, output: Output, settings: MatcherParameters, model_sha256: str, progress: Progress
    ) -> None:
        self.bag = bag
        self.output = replace(output, path=output.path.expanduser())
        self.summary: Summary | None = None
        self._settings = settings
        self._model_sha256 = model_sha256
        self._progress = progress

    def run(self, engine: Engine) -> None:
        """Do what is left of the job; an error ends this job only, and is shown to the user."""
        self.summary, error = attempt(self._run, engine)
        if error is not None and not isinstance(error, CancelledError):
            name = "" if str(self.bag) in str(error) else f"bag {self.bag}: "
            self._progress.log(f"error: {name}{error}")

    def _run(self, engine: Engine) -> Summary:
        key = self._key()
        if self.output.path.exists():
            return self._done_already(key)
        with locked_work_folder(self.output.path, key) as folder:
            if self.output.path.exists():
                # Another run finished it before this run had the lock.
                summary = self._done_already(key)
            else:
                source, index = self._index(engine, folder)
                chunks = self._match(engine, folder, source, len(index))
                folder.remove_unfinished("output-*")
                counts = {"images": index.images, "rejected": index.rejected}
                path, summary = engine.submit(
                    write_matched_bag, source.bag, chunks, self.output, key, folder.path, counts
                ).result()
                path.rename(self.output.path)
            folder.remove()
        return summary

    def _key(self) -> str:
        """Return a hash of bag, settings, model and output: equal keys mean equal results."""
        files = [file.stat() for file in storage_files(self.bag.expanduser())]
        values = asdict(self._settings)
        about = {
            "version": __version__,
            "files": [(file.st_size, file.st_mtime_ns) for file in files],
            "parameters": {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT},
            "model": self._model_sha256,
            "output": (self.output.matches_only, self.output.storage),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _done_already(self, key: str) -> Summary:
        summary = read_summary(self.output.path, key)
        if summary is None:
            raise ConfigError(
                f"{self.output.path} exists, and was not made of bag {self.bag} with these settings",
                fix="choose another output, or remove it",
            )
        self._log(f"{self.output.path} is done already")
        return summary

    def _index(self, engine: Engine, folder: WorkFolder) -> tuple[ChunkSource, FrameIndex]:
        """Read or make the index of the frames; a bag without an end is recovered first."""
        bag = folder.recovered if folder.recovered.exists() else self.bag.expanduser().absolute()
        if folder.index.exists():
            index = FrameIndex.from_bytes(folder.index.read_bytes())
        else:
            try:
                index = engine.submit(build_frame_index, bag, self._settings).result()
            except BrokenBagError as error:
                if bag == folder.recovered:
                    raise
                self._recover(engine, folder, error)
                return self._index(engine, folder)
            folder.write(folder.index, index.to_bytes())
            for note in index.notes:
                self._log(note)
        num_threads = self._settings.num_threads or engine.num_threads
        return ChunkSource(bag, folder.index, self._settings, self._model_sha256, num_threads), index

    def _recover(self, engine: Engine, folder: WorkFolder, error: BrokenBagError) -> None:
        self._log("it has no proper end; reading as far as it can be read")
        folder.remove_unfinished("recovering-*")
        recovered, count = engine.submit(recover, self.bag.expanduser().absolute(), folder.path).result()
        if not count:
            raise error
        recovered.rename(folder.recovered)
        self._log(f"its first {count} messages can be read, and are matched")

    def _match(self, engine: Engine, folder: WorkFolder, source: ChunkSource, frames: int) -> Sequence[Path]:
        """Match the chunks that are not matched yet; returns the files of all chunks."""
        reach = max((view.back for pair in self._settings.frame.rig.pairs for view in pair), default=0)
        length = max(FRAMES_PER_CHUNK, FRAMES_PER_FRAME_BACK * reach)
        ranges = [(first, min(first + length, frames)) for first in range(0, frames, length)]
        left = [chunk for chunk in ranges if not folder.chunk(*chunk).exists()]
        frames_left = sum(last - first for first, last in left)
        self._progress.add(planned=frames_left)
        if len(left) < len(ranges):
            self._log(f"goes on, {frames - frames_left} of {frames} frames are done already")
        futures = {engine.submit(match_chunk, source, *chunk): chunk for chunk in left}
        try:
            for future in as_completed(futures):
                # Without the future its result is gone: all chunks of a long bag are gigabytes.
                first, last = futures.pop(future)
                folder.write(folder.chunk(first, last), future.result())
                self._progress.add(done=last - first)
        finally:
            for future in futures:
                future.cancel()
        return [folder.chunk(*chunk) for chunk in ranges]

    def _log(self, line: str) -> None:
        self._progress.log(f"bag {self.bag}: {line}")
