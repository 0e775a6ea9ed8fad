"""One bag from beginning to end: what of it is done already, what is left, and the writing of the output.

Beside an output OUT that is being made stands the folder OUT.part. It holds job.json, which says of what bag
and with what settings; plan.npz, its frames; a file for each chunk of frames that is matched; and at the end
the bag that is being written. Each file gets its name when it is whole, and the last step is to give the bag
the name OUT. So whenever a run is ended, by whatever means, the next one goes on from the last chunk.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

from lightglue_ros import __version__
from lightglue_ros.bags.engines import Outcome
from lightglue_ros.bags.plan import Plan
from lightglue_ros.bags.work import Chunk, ChunkTask, PlanTask, Source, Task
from lightglue_ros.errors import ConfigError, LightGlueRosError
from lightglue_ros.rosdata.bag_recovery import recover
from lightglue_ros.rosdata.bags import (
    MATCHES_TYPE,
    Bag,
    BagWriter,
    BrokenBagError,
    metadata_of,
    storage_files,
)
from lightglue_ros.rosdata.parameters import MatcherSettings

MATCHES_TOPIC = "/matches"
# Who takes over a chunk extracts again what the pairs need of the past, so a chunk is many times that.
FRAMES_PER_CHUNK = 16
FRAMES_PER_FRAME_BACK = 8
# In the custom data of the output: of what job it is, and what came of it.
_KEY, _SUMMARY = "lightglue_ros_job", "lightglue_ros_summary"


@dataclass(frozen=True)
class Output:
    """What is written.

    Attributes:
        path: folder of the bag.
        matches_only: leave out the messages of the input.
        storage: ``sqlite3`` or ``mcap``; None is that of the input.
    """

    path: Path
    matches_only: bool = False
    storage: str | None = None


@dataclass(frozen=True)
class Summary:
    """What came of a bag.

    Attributes:
        frames: messages of matches.
        pairs: in all of them.
        missing: pairs without one of their images.
        matches: of all pairs.
        images: that were recorded.
        rejected: how many of them could not be used.
    """

    frames: int
    pairs: int
    missing: int
    matches: int
    images: int
    rejected: int


class BagJob:
    """Matches one bag and writes it.

    Args:
        bag: folder of a rosbag2, or its .db3 or .mcap file.
        output: what is written.
        settings: of the matcher.
        model_sha256: of its files.
        tell: called with each line for the user.

    Attributes:
        bag: as it was given.
        output: as it was given.
        failure: why it was given up; None if it was not.
        summary: what came of it; None before it is done.
    """

    def __init__(
        self,
        bag: Path,
        output: Output,
        settings: MatcherSettings,
        model_sha256: str,
        tell: Callable[[str], None],
    ) -> None:
        self.bag = bag
        self.output = replace(output, path=output.path.expanduser())
        self.failure: str | None = None
        self.summary: Summary | None = None
        self._settings = settings
        self._model_sha256 = model_sha256
        self._tell = tell
        # Absolute, for a process elsewhere may work in another folder.
        path = self.output.path.absolute()
        self._folder = path.with_name(f"{path.name}.part")
        self._lock: IO[str] | None = None
        self._plan: Plan | None = None
        self._left: set[Path] = set()

    # What is to be done.

    def begin(self, num_threads: int) -> list[Task]:
        """The first tasks; none if the bag is done already or cannot be begun.

        Args:
            num_threads: of the CPU provider in a task, where the parameters do not say.
        """
        self._num_threads = self._settings.values.num_threads or num_threads
        return self._try(self._begin)

    def take(self, task: Task, outcome: Outcome) -> list[Task]:
        """Take what became of a task; returns the tasks that come of it."""
        return [] if self.failure is not None else self._try(partial(self._take, task, outcome))

    @property
    def is_over(self) -> bool:
        """Whether it is done or was given up."""
        return self.failure is not None or self.summary is not None

    def frames_left(self) -> int:
        """How many planned frames are not matched yet."""
        return sum(last - first for first, last in map(self._frames_of, self._left))

    def release(self) -> None:
        """Let another run go on with it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _try(self, step: Callable[[], list[Task]]) -> list[Task]:
        try:
            return step()
        except (LightGlueRosError, OSError) as error:
            self.failure = str(error)
            what = "" if str(self.bag) in str(error) else f"bag {self.bag}: "
            self._tell(f"error: {what}{error}")
            if self._lock is not None and not self._plan_file.exists():
                shutil.rmtree(self._folder, ignore_errors=True)
            self.release()
            return []

    def _begin(self) -> list[Task]:
        bag = self.bag.expanduser().absolute()
        self._source = Source(bag, self._settings, self._model_sha256, self._key())
        if self.output.path.exists():
            self._need_ours()
            return []
        self._folder.mkdir(exist_ok=True)
        self._take_lock()
        self._check_folder()
        if self._recovered.exists():
            self._source = replace(self._source, bag=self._recovered)
        if not self._plan_file.exists():
            return [PlanTask(self._source)]
        return self._chunk_tasks(Plan.from_bytes(self._plan_file.read_bytes()))

    def _take(self, task: Task, outcome: Outcome) -> list[Task]:
        if isinstance(outcome.error, BrokenBagError) and self._source.bag != self._recovered:
            return self._recover(outcome.error)
        if outcome.error is not None:
            raise outcome.error
        if outcome.worker_died:
            raise ConfigError(
                f"the process that worked on bag {self.bag} died, again and again",
                allowed="a machine with enough memory for each process",
                fix="fewer --jobs",
            )
        if isinstance(task, PlanTask):
            _write(self._plan_file, outcome.result.to_bytes())
            for note in outcome.result.notes:
                self._tell(f"bag {self.bag}: {note}")
            return self._chunk_tasks(outcome.result)
        file = self._chunk_file(task.first, task.last)
        _write(file, outcome.result.to_bytes())
        self._left.remove(file)
        if not self._left:
            self._finish()
        return []

    def _chunk_tasks(self, plan: Plan) -> list[Task]:
        self._plan = plan
        rig = self._settings.frame.rig
        reach = max(map(rig.frames_back, range(len(rig.cameras))))
        length = max(FRAMES_PER_CHUNK, FRAMES_PER_FRAME_BACK * reach)
        ranges = [(first, min(first + length, len(plan))) for first in range(0, len(plan), length)]
        self._files = [self._chunk_file(first, last) for first, last in ranges]
        self._left = {file for file in self._files if not file.exists()}
        if len(self._left) < len(self._files):
            done = len(plan) - self.frames_left()
            self._tell(f"bag {self.bag}: goes on, {done} of {len(plan)} frames are done already")
        if not self._left:
            self._finish()
        return [
            ChunkTask(self._source, self._plan_file, first, last, self._num_threads)
            for first, last in ranges
            if self._chunk_file(first, last) in self._left
        ]

    def _recover(self, error: BrokenBagError) -> list[Task]:
        self._tell(f"bag {self.bag} has no proper end; reading as far as it can be read")
        making = self._folder / "recovering"
        shutil.rmtree(making, ignore_errors=True)
        count = recover(self._source.bag, making)
        if not count:
            raise error
        making.rename(self._recovered)
        self._tell(f"bag {self.bag}: its first {count} messages can be read, and go on as a whole bag")
        self._source = replace(self._source, bag=self._recovered)
        return [PlanTask(self._source)]

    # The folder OUT.part.

    def _key(self) -> str:
        """Says what the result depends on: the bag, the settings, the model and what is written."""
        files = [file.stat() for file in storage_files(self.bag.expanduser())]
        values = asdict(self._settings.values)
        for other in ("model", "num_threads", "drawing_rate", "image_qos", "autostart"):
            values.pop(other)
        about = {
            "version": __version__,
            "files": [(file.st_size, file.st_mtime_ns) for file in files],
            "parameters": values,
            "model": self._model_sha256,
            "output": (self.output.matches_only, self.output.storage),
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _need_ours(self) -> None:
        """Take an output that is there, if it is of the same job."""
        custom = metadata_of(self.output.path).get("custom_data") or {}
        if custom.get(_KEY) != self._source.key:
            raise ConfigError(
                f"{self.output.path} exists, and was not made of bag {self.bag} with these settings",
                fix="choose another output, or remove it",
            )
        self.summary = Summary(**json.loads(custom[_SUMMARY]))
        shutil.rmtree(self._folder, ignore_errors=True)
        self._tell(f"bag {self.bag}: {self.output.path} is done already")

    def _take_lock(self) -> None:
        self._lock = (self._folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another run is writing {self.output.path}", fix="wait for it, or choose another output"
            ) from error
        except OSError:
            pass  # A file system without locks.

    def _check_folder(self) -> None:
        file = self._folder / "job.json"
        content = json.dumps({"bag": str(self.bag), "key": self._source.key}).encode()
        if not file.exists():
            _write(file, content)
        elif json.loads(file.read_bytes())["key"] != self._source.key:
            raise ConfigError(
                f"{self._folder} was begun for another bag or with other settings",
                fix=f"give the same arguments to go on, or begin anew: rm -r {self._folder}",
            )

    @property
    def _plan_file(self) -> Path:
        return self._folder / "plan.npz"

    @property
    def _recovered(self) -> Path:
        return self._folder / "recovered"

    def _chunk_file(self, first: int, last: int) -> Path:
        return self._folder / f"frames-{first}-{last}"

    @staticmethod
    def _frames_of(chunk: Path) -> tuple[int, int]:
        first, last = chunk.name.split("-")[1:]
        return int(first), int(last)

    def _chunks(self) -> Iterator[Chunk]:
        for file in self._files:
            yield Chunk.from_bytes(file.read_bytes())

    # The output.

    def _finish(self) -> None:
        self.summary = self._sum_up()
        making = self._folder / "output"
        shutil.rmtree(making, ignore_errors=True)
        # With its last name, because the file in it is named after its folder.
        whole = making / self.output.path.name
        with Bag(self._source.bag) as bag, self._writer(whole, bag) as writer:
            self._write_bag(bag, writer)
        whole.rename(self.output.path)
        self.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _writer(self, folder: Path, bag: Bag) -> BagWriter:
        notes = {_KEY: self._source.key, _SUMMARY: json.dumps(asdict(self.summary))}
        return BagWriter(folder, self.output.storage or bag.storage, notes)

    def _sum_up(self) -> Summary:
        counts: Counter[str] = Counter(pairs=0, missing=0, matches=0)
        frames, rejected = 0, sum(self._plan.rejected.values())
        for chunk in self._chunks():
            counts.update(chunk.counts)
            frames += len(chunk.messages)
            rejected += sum(chunk.rejected.values())
        return Summary(frames=frames, images=self._plan.images, rejected=rejected, **counts)

    def _write_bag(self, bag: Bag, writer: BagWriter) -> None:
        """Write the messages of both in the order of their times, those of the input first."""
        topic = writer.add_topic(MATCHES_TOPIC, MATCHES_TYPE)
        matches = (message for chunk in self._chunks() for message in chunk.messages)
        following = next(matches, None)
        if not self.output.matches_only:
            if MATCHES_TOPIC in bag.types:
                self._tell(f"bag {self.bag}: its own {MATCHES_TOPIC} is left out")
            for message in bag.copy_to(writer, leave_out=[MATCHES_TOPIC]):
                while following is not None and following[0] < message.time:
                    writer.write(topic, *following)
                    following = next(matches, None)
        while following is not None:
            writer.write(topic, *following)
            following = next(matches, None)


def _write(path: Path, content: bytes) -> None:
    """Write a file that has its name only when it is whole, also after a power failure."""
    making = path.with_name(f"{path.name}.making")
    with making.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)
