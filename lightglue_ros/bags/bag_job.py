"""Matches one bag: indexes its frames, matches them in chunks, writes the matched bag."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lightglue_ros import __version__
from lightglue_ros.bags.chunks import ChunkSource, MatchedChunk, find_rotations, match_chunk
from lightglue_ros.bags.engines import Engine, UnexpectedError, call
from lightglue_ros.bags.frame_index import FrameIndex, build_frame_index
from lightglue_ros.bags.matched_bag import Output, Summary, read_summary, write_matched_bag
from lightglue_ros.bags.progress import Progress
from lightglue_ros.bags.tally import in_words
from lightglue_ros.bags.video import write_video
from lightglue_ros.bags.work_folder import INDEX, locked_work_folder
from lightglue_ros.core.files import write_whole
from lightglue_ros.core.rotation import AUTO
from lightglue_ros.errors import ConfigError, LightGlueRosError
from lightglue_ros.rosdata.bags import storage_files
from lightglue_ros.rosdata.parameters import MatcherParameters

# A chunk is several times as long as the past of its pairs, because that may have to be extracted again.
FRAMES_PER_CHUNK = 16
FRAMES_PER_FRAME_BACK = 8
# Parameters that do not change the matches; of the model the files count.
_WITHOUT_EFFECT = {
    *("model", "num_threads", "spin_threads", "overlap", "image_qos", "lazy", "autostart"),
    *("drawing_rate", "drawing_lines", "drawing_colour"),
}


@dataclass
class BagJob:
    """Matches one bag and writes it.

    Attributes:
        bags: folder of a rosbag2, or its .db3 or .mcap file; several that together hold the rig.
        model_sha256: see `hash_model`.
        video: file of a video of the matches; None makes none.
        summary: None unless the bag is done.
        error: why the bag is not done.
    """

    bags: tuple[Path, ...]
    output: Output
    settings: MatcherParameters
    model_sha256: str
    progress: Progress
    video: Path | None = None
    summary: Summary | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """The bag, or the bags, in words."""
        return " + ".join(map(str, self.bags))

    def run(self, engine: Engine) -> None:
        """Do what is left of the job; an error ends this job only, and is shown to the user."""
        try:
            self.summary = call(self._run, engine)
        except CancelledError:
            pass
        except (LightGlueRosError, OSError) as error:
            name = "" if self.name in str(error) else f"bag {self.name}: "
            self.error = f"{name}{error}"
            self.progress.log(f"error: {self.error}")
            if isinstance(error, UnexpectedError):
                self.progress.log_traceback(error.traceback)

    def _run(self, engine: Engine) -> Summary:
        summary = self._match_bag(engine)
        if self.video is not None:
            self._log(f"drawing {self.video}")
            paths = [path.absolute() for path in (self.output.path, self.video)]
            bags = [bag.absolute() for bag in self.bags]
            engine.submit(write_video, bags, *paths, self.settings).result()
        return summary

    def _match_bag(self, engine: Engine) -> Summary:
        key = self._key()
        with locked_work_folder(self.output.path, key) as folder:
            if self.output.path.exists():
                return self._done_already(key)
            source, index = self._index(engine, folder)
            source = self._with_rotations(engine, source)
            chunks = self._match(engine, folder, source, len(index.frames))
            path, summary = engine.submit(
                write_matched_bag, source, chunks, self.output, key, folder
            ).result()
            if not summary.frames:
                (folder / INDEX).unlink()  # there is nothing to resume
                causes = in_words(summary.findings)
                raise ConfigError(f"bag {self.name}: none of its frames can be matched; {causes}")
            path.rename(self.output.path)
            return summary

    def _key(self) -> str:
        """Return a hash of bag, settings, model and output: equal keys mean equal results."""
        masks = [Path(file) for file in self.settings.mask_files if file]
        files = [file.stat() for file in (*(it for bag in self.bags for it in storage_files(bag)), *masks)]
        values = asdict(self.settings)
        about = {
            "version": __version__,
            "files": [(file.st_size, file.st_mtime_ns) for file in files],
            "parameters": {name: value for name, value in values.items() if name not in _WITHOUT_EFFECT},
            "references": [(it.stat().st_size, it.stat().st_mtime_ns) for it in self._reference_files()],
            "model": self.model_sha256,
            "output": (self.output.matches_only, self.output.storage),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _reference_files(self) -> Iterator[Path]:
        for reference in self.settings.frame.rig.references:
            yield from reference.images

    def _done_already(self, key: str) -> Summary:
        summary = read_summary(self.output.path, key)
        if summary is None:
            raise ConfigError(
                f"{self.output.path} exists, and was not made of bag {self.name} with these settings",
                fix="choose another output, or remove it",
            )
        self._log(f"{self.output.path} is done already")
        return summary

    def _index(self, engine: Engine, folder: Path) -> tuple[ChunkSource, FrameIndex]:
        """Read or make the index of the frames."""
        file, unpacked = folder / INDEX, folder / "unpacked"
        bags = tuple(bag.absolute() for bag in self.bags)
        if file.exists():
            index = pickle.loads(file.read_bytes())
        else:
            index = engine.submit(build_frame_index, bags, unpacked, self.settings).result()
            write_whole(file, pickle.dumps(index))
            for line in [*index.damage, *map(str, index.tally.findings())]:
                self._log(line)
        settings = replace(self.settings, num_threads=self.settings.num_threads or engine.num_threads)
        return ChunkSource(bags, unpacked, file, settings, self.model_sha256), index

    def _with_rotations(self, engine: Engine, source: ChunkSource) -> ChunkSource:
        """Find out the rotations that are not given, once for all chunks, which then give the same."""
        if AUTO not in source.settings.camera_rotations:
            return source
        rotations = engine.submit(find_rotations, source).result()
        named = zip(source.settings.cameras, rotations, strict=True)
        self._log(f"rotations in degrees: {', '.join(f'{name} {it}' for name, it in named)}")
        settings = replace(source.settings, camera_rotations=[str(it) for it in rotations])
        return replace(source, settings=settings)

    def _match(self, engine: Engine, folder: Path, source: ChunkSource, frames: int) -> Sequence[Path]:
        """Match the chunks that are not matched yet; returns the files of all chunks."""
        length = max(FRAMES_PER_CHUNK, FRAMES_PER_FRAME_BACK * self.settings.frame.rig.most_frames_back)
        chunks = [range(first, min(first + length, frames)) for first in range(0, frames, length)]
        files = {chunk: folder / f"frames-{chunk.start}-{chunk.stop}" for chunk in chunks}
        left = [chunk for chunk in chunks if not files[chunk].exists()]
        frames_left = sum(map(len, left))
        self.progress.add(planned=frames_left)
        if len(left) < len(chunks):
            self._log(f"goes on, {frames - frames_left} of {frames} frames are done already")
        futures = {engine.submit(match_chunk, source, chunk): chunk for chunk in left}
        try:
            for future in as_completed(futures):
                # Without the future its result is gone: all chunks of a long bag are gigabytes.
                chunk = futures.pop(future)
                matched: MatchedChunk = future.result()
                write_whole(files[chunk], pickle.dumps(matched))
                for text in matched.tracebacks:
                    self.progress.log_traceback(text)
                self.progress.add(done=len(chunk))
        finally:
            for future in futures:
                future.cancel()
        return list(files.values())

    def _log(self, line: str) -> None:
        self.progress.log(f"bag {self.name}: {line}")
