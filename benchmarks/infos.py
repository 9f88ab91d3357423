"""Infos of the size of trainval: time and memory to prepare them, and to open and share them beside pickles.

`python benchmarks/infos.py` writes tables of 850 scenes (2 GB), prepares them, and compares the infos with
the pickle of the validation split as BEVDepth keeps it: each opened in fresh processes by turns, and read as
a whole by the workers of a loader. Linux only: memory is the proportional set size, which counts shared pages
once.
"""

import argparse
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

VERSION = "v1.0-trainval"
_OPEN = """
import sys, time
{imports}
began = time.perf_counter()
infos = {expression}
length, last = len(infos), infos[-1]
print(time.perf_counter() - began, length)
"""
OPEN = {
    "infos": _OPEN.format(
        imports="from bev_data.infos.infos import open_infos",
        expression=f"open_infos(sys.argv[1], '{VERSION}', sys.argv[2])",
    ),
    "pickle": _OPEN.format(
        imports="import pickle, numpy",
        expression="pickle.load(open(f'{sys.argv[1]}/{sys.argv[2]}.pkl', 'rb'))",
    ),
}


def measured(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak resident memory in GB and output of a process and those that it starts."""
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss / 2**20, output


def prepare(root: Path) -> None:
    """Time `bev-data prepare` on the tables."""
    shutil.rmtree(root / "infos", ignore_errors=True)
    code = "import sys; from bev_data.commands.main import main; sys.exit(main())"
    seconds, peak, output = measured([sys.executable, "-c", code, "prepare", str(root), "--check", "tables"])
    print(f"\n## Prepare\n{output.strip()}\n{seconds:.0f} s, peak {peak:.1f} GB (limits: 600 s, 8 GB)")


def opening(root: Path, rounds: int) -> None:
    """Open each in fresh processes, by turns."""
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, split in (("infos", "train"), ("infos", "val"), ("pickle", "val")):
            _, _, output = measured([sys.executable, "-c", OPEN[name], str(root), split])
            times.setdefault((name, split), []).append(float(output.split()[0]))
    print(f"\n## Open ({rounds} fresh processes each, by turns)\n| what | median s | min s |\n|---|---|---|")
    for (name, split), seconds in times.items():
        print(f"| {name} of {split} | {statistics.median(seconds):.4f} | {min(seconds):.4f} |")
    ratio = statistics.median(times["pickle", "val"]) / statistics.median(times["infos", "val"])
    print(f"pickle / infos of val: {ratio:.0f} x (at least 20 x); infos of train: under 1 s")


def shared_memory(processes: Iterable[int]) -> float:
    """Proportional set size of processes together, in MB."""
    total = 0.0
    for process in processes:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += float(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    return total


def memory_of_workers(
    load: Callable[[], object], read: Callable[[object, int], object], workers: int
) -> float:
    """MB that data takes when a process opens it and forked workers read it as a whole."""
    answer, report = os.pipe()
    if (child := os.fork()) == 0:
        before = shared_memory([os.getpid()])
        data = load()
        length = len(data)  # type: ignore[arg-type]
        done_in, done_out = os.pipe()
        children = []
        for _ in range(workers):
            if (worker := os.fork()) == 0:
                for i in range(length):
                    read(data, i)
                os.write(done_out, b".")
                time.sleep(3600)
            children.append(worker)
        for _ in range(workers):
            os.read(done_in, 1)
        os.write(report, repr(shared_memory([os.getpid(), *children]) - before).encode())
        for worker in children:
            os.kill(worker, 9)
        os._exit(0)
    used = float(os.read(answer, 100))
    os.waitpid(child, 0)
    return used


def memory(root: Path) -> None:
    """Memory of infos and of the pickle with 1 and 4 workers."""
    from bev_data.infos.infos import Infos

    def infos(split: str) -> Callable[[], object]:
        return lambda: Infos.load(root / "infos" / f"{VERSION}_{split}.arrow")

    def pickled() -> object:
        return pickle.loads((root / "val.pkl").read_bytes())

    def read_info(data: object, i: int) -> object:
        # Every number: what is only pointed at stays on disk.
        info = data[i]  # type: ignore[index]
        frames = [frame for step in (info.cameras, *info.sweeps) for frame in step.values()]
        boxes = info.annotations
        matrices = [
            frame.sensor2ego.sum() + frame.ego2global.sum() + frame.intrinsics.sum() for frame in frames
        ]
        return (
            matrices,
            boxes.centers.sum() + boxes.sizes.sum() + boxes.rotations.sum() + boxes.velocities.sum(),
        )

    def read_record(data: object, i: int) -> object:
        record = data[i]  # type: ignore[index]
        frames = [frame for step in (record["cam_infos"], *record["cam_sweeps"]) for frame in step.values()]
        mounts = [value for frame in frames for value in (*frame["ego_pose"].values(), frame["filename"])]
        return mounts, [value for box in record["ann_infos"] for value in box.values()]

    used = {
        (name, workers): memory_of_workers(load, read, workers)
        for name, load, read in (
            ("infos of train", infos("train"), read_info),
            ("infos of val", infos("val"), read_info),
            ("pickle of val", pickled, read_record),
        )
        for workers in (1, 4)
    }
    print("\n## Memory of the loader's process and its workers, all key frames read (MB)")
    print("| what | 1 worker | 4 workers | per extra worker |\n|---|---|---|---|")
    for name in dict.fromkeys(name for name, _ in used):
        one, four = used[name, 1], used[name, 4]
        print(f"| {name} | {one:.0f} | {four:.0f} | {(four - one) / 3:.0f} |")
    ratio = used["pickle of val", 4] / used["infos of val", 4]
    print(
        f"pickle / infos of val with 4 workers: {ratio:.1f} x (at least 10 x); limit per extra worker: 50 MB"
    )


def export(root: Path) -> None:
    """The validation split as BEVDepth's pickle, checked against the infos."""
    from bev_data.infos.infos import open_infos
    from bev_data.infos.pickles import export_pickle

    infos = open_infos(root, VERSION, "val")
    path = root / "val.pkl"
    export_pickle(infos, path)
    records = pickle.loads(path.read_bytes())
    same = len(records) == len(infos) and all(
        records[i]["cam_sweeps"][-1]["CAM_BACK"]["filename"] == infos[i].sweeps[-1]["CAM_BACK"].file
        for i in range(1, len(infos), 97)
        if infos[i].sweeps
    )
    if not same:
        sys.exit("the pickle does not hold what the infos do")
    arrow = (root / "infos" / f"{VERSION}_val.arrow").stat().st_size
    pickled = path.stat().st_size
    print(f"\nval: {len(infos)} key frames; infos {arrow / 1e6:.0f} MB, pickle {pickled / 1e6:.0f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=850, help="850 is the size of trainval")
    parser.add_argument("--rounds", type=int, default=5, help="times each is opened")
    parser.add_argument("--root", type=Path, help="keep the tables here, and use those that are here")
    options = parser.parse_args()
    print(f"# Infos of {options.scenes} scenes\nPython {platform.python_version()}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        if not (root / VERSION).is_dir():
            script = Path(__file__).with_name("large_tables.py")
            measured([sys.executable, str(script), str(root), "--scenes", str(options.scenes)])
        prepare(root)
        # In a process of its own, which leaves no threads behind for the forks below.
        if (child := os.fork()) == 0:
            export(root)
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)
        opening(root, options.rounds)
        memory(root)
