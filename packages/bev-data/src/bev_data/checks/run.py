"""`bev-data check`: all checks of a version, in parallel."""

import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bev_data.checks.files import FileChecker
from bev_data.checks.problem import Problem
from bev_data.checks.report import Report
from bev_data.checks.tables import check_tables
from bev_data.errors import InputError, MissingFileError
from bev_data.infos.arrow import Incomplete
from bev_data.infos.build import build_record_batch
from bev_data.infos.infos import Infos
from bev_data.locations import infos_folder
from bev_data.nuscenes.columns import TableColumns
from bev_data.nuscenes.rows import SampleDataRow, read_rows
from bev_data.nuscenes.splits import split_fingerprint
from bev_data.nuscenes.versions import TABLES, list_versions
from bev_data.parallel import parallel_map


def check_version(
    root: Path,
    version: str,
    *,
    fraction: float = 1.0,
    decode: bool = True,
    sweeps: bool = True,
    all_files: bool = False,
    workers: int = 1,
    progress: bool = True,
    tables: TableColumns | None = None,
    incomplete: Incomplete = "refuse",
) -> Report:
    """Check the tables of a version and the files that they name.

    Args:
        root: data root.
        version: such as v1.0-mini.
        fraction: share of the key frames whose files are read, evenly spread; 0 for the tables alone.
        decode: decode images as a whole; otherwise only their header and end are read.
        sweeps: read the images between key frames too.
        all_files: look for the files of all sensors, which training does not use, lidar sweeps and radar.
        workers: number of processes.
        progress: show a progress bar.
        tables: of the version, where they were read before.
        incomplete: with "drop" and "available", key frames without an image or a file are no problem and are
            left out; see `build_infos`.

    Raises:
        FileNotFoundError: if the root or the version is missing.
        ValueError: if the fraction is not in 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"the fraction of key frames to check must be in 0 to 1, got {fraction}")
    versions = list_versions(root)
    if version not in versions:
        there = ", ".join(versions) or "none"
        raise MissingFileError(f"{root} must hold the folder {version}, got versions: {there}")
    missing = [table for table in TABLES if not (root / version / f"{table}.json").is_file()]
    if missing:
        return Report(version, 0, 0, 0, tuple(_missing_table(root, version, table) for table in missing))
    problems: list[Problem] = []
    try:
        tables = TableColumns(root, version) if tables is None else tables
        problems += check_tables(tables, whole=incomplete == "refuse")
        problems += _prepared_files(root, version)
        if all_files:
            problems += _all_files(root, version)
        every = [scene.token for scene in tables.scenes]
        num_sweeps = tables.sweeps_between() if sweeps else 0
        records = build_record_batch(tables, version, "all", every, num_sweeps, "", incomplete)
    except InputError as error:
        # Without whole tables there are no key frames to look at; what is wrong may be known by now.
        return Report(version, 0, 0, 0, tuple(problems or [Problem("table", str(error))]))
    total, images = records.num_rows, 0
    rows = np.unique(np.linspace(0, total - 1, round(fraction * total)).round().astype(int)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        # In a file, which all workers share.
        infos = Infos(records).save(Path(folder) / "all.arrow")
        del records
        results = parallel_map(FileChecker(root, infos, decode, sweeps), rows, workers if rows else 1)
        title = f"files of {version}"
        for read, found in tqdm(results, title, len(rows), unit="frame", disable=not progress or not rows):
            images += read
            problems += found
    return Report(version, len(rows), images, total, tuple(problems))


def _missing_table(root: Path, version: str, table: str) -> Problem:
    return Problem(
        "missing file",
        f"the table {table}.json must be in {root / version}, but it is missing; unpack the metadata archive "
        f"again",
        f"{version}/{table}.json",
    )


def _prepared_files(root: Path, version: str) -> list[Problem]:
    """Infos that were made before and are damaged, or no longer those of the tables."""
    problems = []
    for path in sorted(infos_folder(root).glob(f"{version}_*.arrow")):
        split = path.stem.removeprefix(f"{version}_")
        try:
            stale = Infos.load(path).header.tables not in ("", split_fingerprint(root, version, split))
        except InputError as error:
            problems.append(Problem("infos", str(error)))
            continue
        if stale:
            problems.append(
                Problem(
                    "infos",
                    f"the infos {path} must be made from the tables there are, got others; make them again "
                    f"with `bev-data prepare`",
                )
            )
    return problems


def _all_files(root: Path, version: str) -> list[Problem]:
    return [
        Problem("missing file", f"the file {root / row.filename} is missing or empty", row.filename)
        for row in read_rows(root / version, "sample_data", SampleDataRow)
        if not (root / row.filename).is_file() or not (root / row.filename).stat().st_size
    ]
