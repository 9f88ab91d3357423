"""`bev-data prepare`: all that a data root needs before training, in one go that may be stopped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from bev_data.atomic import remove_leftovers
from bev_data.checks import Report, check_version
from bev_data.errors import InputError, MissingFileError
from bev_data.infos.arrow import Incomplete
from bev_data.infos.build import build_record_batch
from bev_data.infos.infos import Infos, infos_path
from bev_data.locations import infos_folder
from bev_data.nuscenes.columns import TableColumns
from bev_data.nuscenes.splits import (
    add_splits,
    list_splits,
    read_split_file,
    split_fingerprint,
    split_members,
    split_tokens,
)
from bev_data.nuscenes.versions import list_versions, require_tables
from bev_data.samples.depth_files import write_depth_files

Check = Literal["sample", "tables", "none"]

# Halves of the train split, which only tracking needs: made when they are asked for.
_HALVES = ("train_detect", "train_track")
# Where files of a version are, as nuScenes packs them.
_ARCHIVES = {
    "v1.0-mini": "v1.0-mini.tgz holds them all",
    "v1.0-trainval": "v1.0-trainval01_blobs.tgz to 10 hold 85 whole scenes each, with all their sensors",
    "v1.0-test": "v1.0-test_blobs.tgz holds them all",
}
# Key frames whose files are read to check what was made.
_CHECKED_FRAMES = 100


@dataclass(frozen=True)
class PreparedSplit:
    """A split and its infos.

    Attributes:
        infos: in their file.
        made: False where the file was there and up to date.
        boxes: number of annotations.
        left_out: key frames that lack an image or, where only what is available was asked for, a file.
    """

    infos: Infos
    made: bool
    boxes: int
    left_out: int = 0


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made and found."""

    splits: tuple[PreparedSplit, ...]
    depth_files: tuple[int, int] | None
    reports: tuple[Report, ...]

    @property
    def problems(self) -> int:
        """Number of problems that the check found."""
        return sum(len(report.problems) for report in self.reports)

    def text(self) -> str:
        """The summary as lines."""
        lines = [f"{'version':<16}{'split':<14}{'key frames':>11}{'cameras':>9}{'boxes':>10}  infos"]
        for split in self.splits:
            infos = split.infos
            lines.append(
                f"{infos.version:<16}{infos.split:<14}{len(infos):>11}{len(infos.cameras):>9}"
                f"{split.boxes:>10}  {'made' if split.made else 'kept'}: {infos.path}"
            )
            if split.left_out:
                lines.append(f"{'':<16}{split.left_out} key frames are left out: {_reason(infos)}")
        if self.depth_files is None:
            lines.append("depth: computed from lidar while training")
        else:
            lines.append(f"depth: {self.depth_files[0]} files written, {self.depth_files[1]} kept")
        lines += [f"check: {report.text()}" for report in self.reports]
        return "\n".join(lines)


def _reason(infos: Infos) -> str:
    if infos.header.incomplete != "available":
        return "they lack an image of a camera in the tables"
    return f"files of theirs are not there; {_ARCHIVES.get(infos.version, 'get the archives that hold them')}"


def prepare(
    root: Path,
    *,
    versions: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    split_files: Sequence[Path] = (),
    num_sweeps: int | None = None,
    incomplete: Incomplete | None = None,
    depth_files: bool = False,
    check: Check = "sample",
    workers: int = 1,
    progress: bool = True,
) -> Prepared:
    """Write the infos of all splits of a data root, depth files if wanted, and check the result.

    Everything is written whole or not at all, and what is there and up to date is kept: a run that was
    stopped, even killed, goes on where it was.

    Args:
        root: data root.
        versions: such as v1.0-mini; None for all there are.
        splits: None for all that the versions have, those of one's own among them.
        split_files: of splits of one's own to add; see `bev_data.nuscenes.splits.read_split_file`.
        num_sweeps: the most images before each key frame to note; None for what there is already, else 6.
        incomplete: what to do with key frames that lack a camera; see `build_infos`. None for what was done
            before, else "refuse".
        depth_files: write lidar depth to `depth_gt/`; without, the loader computes the same numbers.
        check: "sample": the tables, and the files of some key frames. "tables": the tables. "none": nothing.
        workers: processes for depth files and the check.
        progress: show progress bars.

    Raises:
        FileNotFoundError: if the root, a version, a table or a lidar file is missing.
        ValueError: if a split is unknown, or a table or a lidar file is damaged.
        OSError: if a file cannot be written.
    """
    names = _versions(root, versions)
    for folder in (infos_folder(root), root / "depth_gt"):
        remove_leftovers(folder)
    for path in split_files:
        if len(names) > 1:
            raise InputError(f"with a split file, say for which version it is: {', '.join(names)}")
        add_splits(root, names[0], read_split_file(path))
    wanted = _wanted(root, names, splits)
    prepared: list[PreparedSplit] = []
    reports: list[Report] = []
    written = kept = 0
    for version in names:
        tables = _TableReader(root, version, progress)
        of_version = [_prepare_split(tables, split, num_sweeps, incomplete) for split in wanted[version]]
        for split in of_version if depth_files else ():
            counts = write_depth_files(root, split.infos, workers=workers, progress=progress)
            written, kept = written + counts[0], kept + counts[1]
        if check != "none":
            total = sum(len(split.infos) for split in of_version)
            reports.append(
                check_version(
                    root,
                    version,
                    fraction=min(1.0, _CHECKED_FRAMES / max(1, total)) if check == "sample" else 0.0,
                    workers=workers,
                    progress=progress,
                    tables=tables.columns(),
                    incomplete=_most_lenient(of_version),
                )
            )
        prepared += of_version
    return Prepared(tuple(prepared), (written, kept) if depth_files else None, tuple(reports))


class _TableReader:
    """The tables of a version, read when the first split asks for them."""

    def __init__(self, root: Path, version: str, progress: bool) -> None:
        self.root, self.version, self._progress = root, version, progress
        self._columns: TableColumns | None = None

    def columns(self) -> TableColumns:
        if self._columns is None:
            columns = TableColumns(self.root, self.version)
            title = f"tables of {self.version}"
            with tqdm(total=2, desc=title, unit="table", disable=not self._progress) as bar:
                for _ in (columns.recordings, columns.boxes):
                    bar.update()
            self._columns = columns
        return self._columns


def _versions(root: Path, versions: Sequence[str] | None) -> list[str]:
    there = list_versions(root)
    names = list(versions) if versions else there
    if not names:
        raise MissingFileError(
            f"the data root must hold a version folder (v1.0-mini, v1.0-trainval or v1.0-test) with the "
            f"nuScenes tables, got none in {root}; unpack the metadata archive there, or make a world with "
            f"`bev-data synth`"
        )
    # All of them first: an hour of work is not to end at a table that was missing from the start.
    for name in names:
        require_tables(root, name)
    return names


def _wanted(root: Path, versions: Sequence[str], splits: Sequence[str] | None) -> dict[str, list[str]]:
    """The splits to prepare, by version."""
    there = {version: list_splits(root, version) for version in versions}
    every = [split for of_version in there.values() for split in of_version]
    unknown = [split for split in splits or () if split not in every]
    add = "add a split of your own with `bev-data prepare --split-file FILE`"
    if not every:
        raise InputError(
            f"{', '.join(versions)} in {root} must have scenes of a split that is known, got none; {add}"
        )
    if unknown:
        raise InputError(
            f"splits of {', '.join(versions)} in {root} must be some of: {', '.join(every)}; got "
            f"{unknown[0]}; {add}"
        )
    return {
        version: [split for split in of_version if split in (splits or set(of_version).difference(_HALVES))]
        for version, of_version in there.items()
    }


def _prepare_split(
    tables: _TableReader, split: str, num_sweeps: int | None, incomplete: Incomplete | None
) -> PreparedSplit:
    root, version = tables.root, tables.version
    members = split_members(root, version, split)
    made_from = split_fingerprint(root, version, split)
    path = infos_path(root, version, split)
    sweeps = 6 if num_sweeps is None else num_sweeps
    policy: Incomplete = "refuse" if incomplete is None else incomplete
    try:
        infos = Infos.load(path)
        if num_sweeps is None:
            sweeps = infos.header.num_sweeps
        if incomplete is None:
            policy = infos.header.incomplete
        kept = infos.header
        same = (kept.tables, kept.num_sweeps, kept.incomplete) == (made_from, sweeps, policy)
        # Files may have come since: what is available is looked up anew.
        made = policy == "available" or not same
    except (FileNotFoundError, InputError):
        made = True
    if made:
        records = build_record_batch(tables.columns(), version, split, members, sweeps, made_from, policy)
        infos = Infos(records).save(path)
    left_out = 0
    if policy != "refuse":
        left_out = len(split_tokens(root, version, split)) - len(infos)
    return PreparedSplit(infos, made, infos.num_boxes, left_out)


def _most_lenient(splits: Sequence[PreparedSplit]) -> Incomplete:
    policies = {split.infos.header.incomplete for split in splits}
    return next((policy for policy in ("available", "drop") if policy in policies), "refuse")
