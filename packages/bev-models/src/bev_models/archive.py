"""Whether a file of `torch.save` is whole: torch itself does not look at the checksums that it writes."""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# How a zip archive, which torch.save writes since 1.6, begins.
_ZIP = b"PK\x03\x04"
_CHUNK = 1 << 22
_THREADS = 4
# zipfile has many ways to find a file damaged.
_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, OverflowError)


def check_archive(path: Path) -> None:
    """Read all of an archive and compare every entry with its CRC-32.

    Args:
        path: of a file of `torch.save`; one of the format before 1.6, which has no checksums, passes.

    Raises:
        ValueError: if it is cut off or changed, or holds entries that are compressed, which torch.save never
            writes and which could unpack to any size.
    """
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return
    try:
        with zipfile.ZipFile(path) as archive, ThreadPoolExecutor(_THREADS) as pool:
            entries = archive.infolist()
            plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            if not plain or len({entry.filename for entry in entries}) < len(entries):
                raise ValueError(
                    f"a file of torch.save must hold plain entries, each once, got others in {path}"
                )
            for _ in pool.map(lambda entry: _read(archive, entry), entries):
                pass
    except _DAMAGED as error:
        raise ValueError(f"the file must be whole, got a damaged one: {path} ({error})") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read an entry to its end, where zipfile compares checksums."""
    with archive.open(entry) as part:
        while part.read(_CHUNK):
            pass
