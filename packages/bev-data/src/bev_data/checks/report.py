"""The outcome of a check, for people and for download scripts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bev_data.atomic import atomic_path
from bev_data.checks.problem import Problem


@dataclass(frozen=True)
class Report:
    """What was looked at and what was found.

    Attributes:
        version: of the tables.
        key_frames: whose files were read.
        images: that were read, sweeps included.
        total_key_frames: that the version has.
        problems: in the order in which they were found.
    """

    version: str
    key_frames: int
    images: int
    total_key_frames: int
    problems: tuple[Problem, ...]

    def text(self, limit: int = 5) -> str:
        """The report as lines.

        Args:
            limit: problems of each kind to write out; 0 for all.
        """
        lines = [
            f"{self.version}: read {self.key_frames} of {self.total_key_frames} key frames, "
            f"{self.images} images; {len(self.problems) or 'no'} "
            f"problem{'' if len(self.problems) == 1 else 's'}"
        ]
        for kind, count in Counter(problem.kind for problem in self.problems).items():
            lines.append(f"\n{kind}: {count}")
            shown = [problem.message for problem in self.problems if problem.kind == kind]
            lines += [f"  {message}" for message in shown[: limit or None]]
            if limit and count > limit:
                lines.append(f"  ... and {count - limit} more")
        return "\n".join(lines)


def write_fix_list(reports: Sequence[Report], path: Path) -> int:
    """Write the files to download again, one path relative to the data root per line; returns how many."""
    files = sorted({problem.file for report in reports for problem in report.problems if problem.file})
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    return len(files)
