"""The code that README.md, CONTRIBUTING.md and docs/ print, and who runs which line of it.

`test_readme.py` checks all of it. What can be run is run as printed, by the test that `run_by` names.
"""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL, PYTHON, YAML, SAID, PICTURE = "shell", "python", "yaml", "said", "picture"
LANGUAGES = {"bash": SHELL, "sh": SHELL, "python": PYTHON, "yaml": YAML, "text": SAID}
# Programs of others: that they are there, and what they take, is theirs.
OUTSIDE = ("apt", "cd", "colcon", "cp", "df", "docker", "echo", "fastdds", "git", "ls", "mkdir", "nvidia-smi")
OUTSIDE += ("printenv", "ray", "rm", "rosdep", "rsync", "ruff", "rviz2", "scp", "sudo")
# Programs whose arguments are ours.
OURS = (".", "export", "lightglue_ros", "make", "pip", "pytest", "python", "python3", "ros2", "source")
PREFIXES = re.compile(r"(camera \w+|pairs unverified|no matches for [\d.]+ s): ")
# Of a quoted text must be fixed in the code: a share of it, or so many letters where its values are long.
LEAST_SHARE, LEAST_LETTERS = 0.25, 15

# Who runs what.
COMMANDS, NODES, LAUNCHES, ROS2 = "a command", "a node", "a launch file", "the command ros2"
DRY, PROGRAM, MAKEFILE = "make -n", "Python", "Makefile"
FIRST_PORT, COMING_FROM = "test/export/test_first_port.py", "test/test_coming_from.py"
# Blocks with a test of their own, by document, kind and title of the section.
SECTIONS = {
    ("README.md", SHELL, "From LightGlue's first ONNX port"): FIRST_PORT,
    ("README.md", PYTHON, "From LightGlue's first ONNX port"): FIRST_PORT,
    ("coming_from.md", PYTHON, "From cvg/LightGlue in PyTorch"): COMING_FROM,
    ("coming_from.md", PYTHON, "From verlab's XFeat"): COMING_FROM,
    ("coming_from.md", PYTHON, "From OpenCV's features2d"): COMING_FROM,
}
# Other lines, by the first pattern that is found in them.
RUN = {
    r"^make ": DRY,
    r" export xfeat --split$": MAKEFILE,
    r"^lightglue_ros (export --list|match left\.png|bag|bench$|demo$)": COMMANDS,
    r"^(df|export|python3 -c|\.) ": COMMANDS,
    r"^ros2 run lightglue_ros \w+ --ros-args (?!.*name:=)": NODES,
    r"^ros2 launch lightglue_ros ": LAUNCHES,
    r"^ros2 (node list|topic list|topic \w+ .*/|param \w+ /\w+ (?!NAME)|lifecycle)": ROS2,
}
WHY_NOT = {
    r"^(pip|rosdep|docker) |git clone": "installs, or needs the network",
    r"^(colcon build|cd test$|pytest )": "make has done it when the tests run, or is doing it",
    r"^(rviz2|ros2 (security|bag)|fastdds discovery) |rmw_zenoh|ROS_SECURITY": "not among ROS 2's wheels",
    r"^fastdds shm clean": "takes memory of processes that are not the test's",
    r"^printenv ": "its status says which of them are set",
    r"python (bench/|tools/|test/)": "measures for minutes or writes into the checkout; has tests of its own",
    r"export \w+ .*--(max-keypoints|precision)|bench --model": "exports for a minute, or needs such a model",
    r"NAME|COMMAND|LEFT|name:=|\.\.\.|\ba\.png": "stands for what the reader has",
    r"^ros2 [a-z]+( [a-z]+)?$": "names a command without its arguments",
}


@dataclass(frozen=True)
class Block:
    """Lines of code in a document, or of a paragraph of such lines where they are indented only.

    A command between backticks among words is one, too.
    """

    path: Path
    line: int
    language: str
    text: str
    section: str = ""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def kind(self) -> str:
        """By its language, else by what it looks like."""
        if self.language:
            assert self.language in LANGUAGES, f"{self}: the language {self.language} is not known"
            return LANGUAGES[self.language]
        if "ros__parameters:" in self.text:
            return YAML
        if first_word(self.text) in (*OUTSIDE, *OURS):
            return SHELL
        if is_python(self.text):
            return PYTHON
        if all(map(is_said, self.text.splitlines())):
            return SAID
        assert " -> " in re.sub(" +", " ", self.text), f"{self}: of no known kind:\n{self.text}"
        return PICTURE


def blocks_of(path: Path) -> Iterator[Block]:
    fence, begin, lines = None, 0, []
    section, was_blank = "", True
    for number, line in enumerate([*path.read_text().splitlines(), ""], 1):
        if fence is not None:
            if line.strip() == "```":
                yield Block(path, begin, fence, "\n".join(lines), section)
                fence, lines = None, []
            else:
                lines.append(line)
        elif line.strip().startswith("```"):
            fence, begin = line.strip()[3:].strip(), number
        elif line.startswith("    ") and (lines or was_blank):
            begin = begin if lines else number
            lines.append(line)
        elif lines:
            indent = min(len(line) - len(line.lstrip()) for line in lines)
            yield Block(path, begin, "", "\n".join(line[indent:] for line in lines), section)
            lines = []
        if fence is None and line.startswith("#"):
            section = line.lstrip("# ")
        was_blank = not line.strip()
    assert fence is None, f"{path}: a block has no end"


def commands_among_words(path: Path) -> Iterator[Block]:
    """Those that have arguments; a block is blanked, and keeps its lines."""
    blank = partial(re.sub, r"[^\n]", "")
    text = re.sub(
        r"^```.*?^```$|^    [^\n]*", lambda block: blank(block[0]), path.read_text(), flags=re.S | re.M
    )
    for span in re.finditer(r"`([^`]+)`", text):
        words = " ".join(span[1].split())
        if first_word(words) in (*OUTSIDE, *OURS) and " " in words:
            yield Block(path, 1 + text.count("\n", 0, span.start()), "sh", words)


def first_word(text: str) -> str:
    words = [word for word in text.split() if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    return words[0] if words else ""


def is_python(text: str) -> bool:
    """Whether it is Python that does something; `program --option` is a difference to Python."""
    try:
        statements = ast.parse(text).body
    except SyntaxError:
        return False
    values = [statement.value for statement in statements if isinstance(statement, ast.Expr)]
    return not any(isinstance(value, (ast.Name, ast.BinOp, ast.UnaryOp, ast.Compare)) for value in values)


def commands_of(line: str) -> Iterator[list[str]]:
    """The words of each command of a line."""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in ("&&", ";", "|", "||", "&"):
            yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


@cache
def templates() -> list[tuple[re.Pattern[str], int]]:
    """Each text of the code with its places filled by anything, and how many letters of it are fixed."""
    found = set()
    for folder in ("lightglue_ros", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    found.add(tuple(getattr(part, "value", None) for part in fixed_parts(node)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add((node.value,))
    lines = (parts for parts in found if not any("\n" in part for part in parts if part))
    return [
        (
            re.compile("".join(".*" if part is None else re.escape(part) for part in parts)),
            sum(len(part.strip()) for part in parts if part),
        )
        for parts in lines
    ]


def fixed_parts(text: ast.JoinedStr) -> Iterator[ast.Constant | None]:
    for part in text.values:
        yield part if isinstance(part, ast.Constant) else None


def is_said(line: str) -> bool:
    """Whether the code says this: as a whole, or what was wrong, what is allowed and how to fix it apart."""
    line = line.strip()
    least = min(LEAST_SHARE * len(line), LEAST_LETTERS)
    if any(letters >= least and pattern.fullmatch(line) for pattern, letters in templates()):
        return True
    prefix = PREFIXES.match(line)
    if prefix:
        return is_said(line[prefix.end() :])
    parts = re.split("; allowed: |; fix: ", line)
    return len(parts) > 1 and all(part == "..." or is_said(part) for part in parts)


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]
AMONG_WORDS = [block for path in DOCUMENTS for block in commands_among_words(path)]


def lines_of(block: Block) -> list[str]:
    """Lines of the shell as printed, but continued ones in one."""
    return block.text.replace("\\\n", " ").splitlines()


def without_comment(line: str) -> str:
    return re.sub(r"\s+# .*", "", line)


def run_by(block: Block, line: str = "") -> str | None:
    """Who runs a block of Python, or a line of the shell; None is nobody."""
    own = SECTIONS.get((block.path.name, block.kind, block.section))
    if own or block.kind == PYTHON:
        return own or PROGRAM
    return next((by for pattern, by in RUN.items() if re.search(pattern, without_comment(line))), None)


def why_not(line: str) -> str | None:
    """Why nobody runs a line; None where no reason is known."""
    found = (reason for pattern, reason in WHY_NOT.items() if re.search(pattern, without_comment(line)))
    return next(found, None)


def lines_run_by(whom: str) -> list[str]:
    """Each line of the shell once."""
    shell = [block for block in [*BLOCKS, *AMONG_WORDS] if block.kind == SHELL]
    lines = [line for block in shell for line in lines_of(block) if run_by(block, line) == whom]
    return list(dict.fromkeys(map(without_comment, lines)))


def programs_run_by(whom: str) -> list[str]:
    """Blocks of Python."""
    return [block.text for block in BLOCKS if block.kind == PYTHON and run_by(block) == whom]
