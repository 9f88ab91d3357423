"""Infos: the key frames of one split, built from the nuScenes tables and read from one memory-mapped file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from bev_data.errors import InputError
from bev_data.infos import arrow
from bev_data.infos.arrow import Header, Incomplete
from bev_data.infos.blocks import CheckedFile
from bev_data.infos.build import build_record_batch
from bev_data.infos.info import Annotations, CameraFrame, Info, LidarFrame, enough_points
from bev_data.infos.mapped import Columns, map_file
from bev_data.locations import infos_folder, infos_path
from bev_data.nuscenes.columns import TableColumns
from bev_data.nuscenes.splits import split_fingerprint, split_members
from bev_data.nuscenes.versions import find_version

__all__ = [
    "Annotations",
    "CameraFrame",
    "Info",
    "Infos",
    "LidarFrame",
    "build_infos",
    "find_version",
    "infos_path",
    "infos_without_tables",
    "open_infos",
]


class Infos(Sequence[Info]):
    """The key frames of a split: scene by scene, in the order of time.

    An `Infos` that was saved or loaded lives in a memory-mapped file: it opens at once, pickles as its path,
    and all processes share one copy of its pages.

    Attributes:
        header: version, split, cameras and number of sweeps.
        path: the file; None for an `Infos` that was only built.
    """

    def __init__(
        self, records: pa.RecordBatch, path: Path | None = None, file: CheckedFile | None = None
    ) -> None:
        self._records = records
        self._columns = Columns(records, file)
        self._file = file
        self.header = arrow.read_header(records)
        self.path = path

    @classmethod
    def from_list(
        cls, infos: Sequence[Info], *, version: str, split: str, cameras: Sequence[str] | None = None
    ) -> "Infos":
        """Infos of one's own data.

        Args:
            infos: key frames; `prev` indexes this sequence.
            version: a name for the data, such as v1.0-mini.
            split: a name for the part of it.
            cameras: names in order; those of the first key frame where it is None.

        Raises:
            ValueError: if key frames have other cameras than these, or `prev` does not point back in the same
                scene.
        """
        names = tuple(cameras if cameras is not None else (infos[0].cameras if infos else ()))
        for i, info in enumerate(infos):
            if set(info.cameras) != set(names):
                raise InputError(
                    f"every key frame must have an image of each of {list(names)}, "
                    f"got {sorted(info.cameras)} for {info.token} of {info.scene}"
                )
            if info.prev is not None and not (0 <= info.prev < i and infos[info.prev].scene == info.scene):
                raise InputError(
                    f"prev of key frame {i} must be an earlier index of the same scene, got {info.prev}"
                )
        num_sweeps = max((len(info.sweeps) for info in infos), default=0)
        header = Header(version, split, names, num_sweeps)
        return cls(arrow.join([arrow.to_record_batch(infos, header)], header))

    @classmethod
    def load(cls, path: Path | str) -> "Infos":
        """Open a file.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is damaged, no infos file, or one of another format.
        """
        # Absolute, so that it is found from a worker with another working directory.
        records, file = map_file(Path(path))
        return cls(records, Path(path).absolute(), file)

    def save(self, path: Path | str) -> "Infos":
        """Write the file, whole or not at all, and return the `Infos` that lives in it."""
        if self._file is not None:
            # What is damaged must not get checksums that say it is not.
            self._file.check(0, len(self._file.contents))
        arrow.write_file(self._records, Path(path))
        return Infos.load(path)

    @property
    def version(self) -> str:
        """Version of the tables, such as v1.0-mini."""
        return self.header.version

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.header.split

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras, in order."""
        return self.header.cameras

    @property
    def tokens(self) -> list[str]:
        """Sample tokens of all key frames."""
        return self._columns.tokens()

    @property
    def prev(self) -> NDArray[np.int32]:
        """Index of each key frame's predecessor in its scene; -1 at a scene's start."""
        return self._columns.prev

    @property
    def timestamps(self) -> NDArray[np.int64]:
        """Moment of each key frame, in microseconds."""
        return self._columns.timestamps

    def has_sweep(self, index: int, cameras: Sequence[str]) -> NDArray[np.bool_]:
        """By key frame: whether all these cameras have the sweep of this index (0 = the nearest)."""
        images = self._columns.images
        ids = [self.cameras.index(name) for name in cameras]
        wanted = (images.whole_field("step") == index + 1) & np.isin(images.whole_field("camera"), ids)
        found: NDArray[np.bool_] = np.bincount(images.row_of_entry[wanted], minlength=len(self)) == len(ids)
        return found

    @property
    def num_boxes(self) -> int:
        """Number of annotations of all key frames."""
        return len(self._columns.annotations)

    def boxes_per_category(
        self, min_points: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str], NDArray[np.bool_]]:
        """All boxes: index of key frame, index of category, names of categories, whether points suffice."""
        rows = self._columns.annotations
        encoded = rows.whole_field("category").dictionary_encode()
        counts = (rows.whole_field(name).astype(np.int64) for name in ("num_lidar_pts", "num_radar_pts"))
        lidar, radar = counts
        names = encoded.dictionary.to_pylist()
        categories = encoded.indices.to_numpy().astype(np.int64)
        return rows.row_of_entry, categories, names, enough_points(lidar, radar, min_points)

    def __len__(self) -> int:
        return int(self._records.num_rows)

    @overload
    def __getitem__(self, index: int) -> Info: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Info]: ...
    def __getitem__(self, index: int | slice) -> Info | Sequence[Info]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = index + len(self) if index < 0 else index
        if not 0 <= row < len(self):
            raise IndexError(f"the index of a key frame must be below {len(self)}, got {index}")
        return self._columns.info(row, self.header)

    def __iter__(self) -> Iterator[Info]:
        return (self[i] for i in range(len(self)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Infos, (self._records,)) if self.path is None else (Infos.load, (self.path,))

    def __repr__(self) -> str:
        return (
            f"Infos({self.version}, {self.split}, {len(self)} key frames, cameras {', '.join(self.cameras)})"
        )


def build_infos(
    root: Path | str,
    version: str,
    split: str,
    *,
    num_sweeps: int = 6,
    incomplete: Incomplete = "refuse",
    progress: bool = True,
) -> Infos:
    """Collect the key frames of a split from the nuScenes tables.

    Args:
        root: data root.
        version: such as v1.0-mini.
        split: one of the devkit's splits that fit the version, or one of one's own; see
            `bev_data.nuscenes.splits`.
        num_sweeps: the most images before each key frame to note per camera.
        incomplete: "refuse": end with an error where a key frame lacks a camera. "drop": leave it out, and
            let `prev` reach over it. "available": leave out those too whose files are not in the root, and
            sweeps that are not. "keep": take it as it is, for what needs boxes alone.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if the version does not have the split, a key frame lacks a camera, a table is damaged, or
            there are to be more than 127 sweeps.
    """
    root = Path(root)
    made_from = split_fingerprint(root, version, split)
    members = split_members(root, version, split)
    tables = TableColumns(root, version)
    with tqdm(total=3, desc=f"infos of {split}", unit="step", disable=not progress) as bar:
        for _ in (tables.recordings, tables.boxes):
            bar.update()
        records = build_record_batch(tables, version, split, members, num_sweeps, made_from, incomplete)
        bar.update()
    return Infos(records)


def open_infos(
    root: Path | str, version: str, split: str, cache: Path | str | None = None, *, progress: bool = True
) -> Infos:
    """Infos of a split: from the file where it is up to date, else built from the tables and kept.

    Infos that were not made from tables, such as those of one's own data, are taken as they are.

    Args:
        root: data root.
        version: such as v1.0-mini.
        split: such as mini_train.
        cache: folder of the file; None for `infos/` in the data root, or, where that cannot be written,
            `~/.cache/bev-data/`.
        progress: show a progress bar while building.

    Raises:
        FileNotFoundError: if the root, the version or a table is missing.
        ValueError: if the version does not have the split or a table is damaged.
    """
    root = Path(root)
    path = infos_path(root, version, split) if cache is None else Path(cache) / f"{version}_{split}.arrow"
    num_sweeps = 6
    incomplete: Incomplete = "refuse"
    # Where the user may not write to the root, somebody else may have prepared it.
    for candidate in dict.fromkeys((path, root / "infos" / path.name) if cache is None else (path,)):
        try:
            infos = Infos.load(candidate)
        except FileNotFoundError:
            continue
        except InputError:
            # Of another format, or damaged: made anew where there are tables to make it from.
            if (root / version).is_dir():
                continue
            raise
        if infos.header.tables in ("", split_fingerprint(root, version, split)):
            return infos
        num_sweeps, incomplete = infos.header.num_sweeps, infos.header.incomplete
    built = build_infos(root, version, split, num_sweeps=num_sweeps, incomplete=incomplete, progress=progress)
    return built.save(path)


def infos_without_tables(root: Path) -> list[Infos]:
    """Infos of a root whose version has no tables there: imported ones, and those of one's own rig.

    Raises:
        ValueError: if a file is damaged.
    """
    every = (Infos.load(path) for path in sorted(infos_folder(root).glob("*.arrow")))
    return [infos for infos in every if not (root / infos.version).is_dir()]
