"""What a check finds."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "table", "link", "time", "pose", "calibration", "box", "missing file", "damaged file", "lidar", "infos"
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: of problem.
        message: a sentence that names the record or file, what it must be, and how to mend it.
        file: what to download again, relative to the data root; "" where no file is to blame.
    """

    kind: Kind
    message: str
    file: str = ""
