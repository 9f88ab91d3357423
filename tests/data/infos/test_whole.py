"""Infos files that are damaged: nothing of them is believed, and they are made anew."""

import os
import random

import numpy as np
import pyarrow as pa
import pytest

from bev_data.infos.arrow import FORMAT_KEY, SCHEMA
from bev_data.infos.blocks import append_checksums
from bev_data.infos.infos import Infos, open_infos


def everything(infos):
    """All that an `Infos` tells, to compare it by."""
    told = [infos.header, infos.tokens, infos.prev.tolist(), infos.timestamps.tolist()]
    told += [infos.has_sweep(0, infos.cameras).tolist(), [list(part) for part in infos.boxes_per_category(0)]]
    for info in infos:
        frames = [(*step, *step.values()) for step in (info.cameras, *info.sweeps)]
        frames.append((info.lidar,))
        told += [[vars(f) if hasattr(f, "file") else f for f in step] for step in frames]
        told.append(vars(info.annotations))
    return repr(told)


@pytest.fixture
def file(mini_val, tmp_path):
    return mini_val.save(tmp_path / "infos.arrow").path


def test_no_changed_byte_is_believed(file):
    """A bit of every 150th part of the file, and of each of its last bytes."""
    content = file.read_bytes()
    expected = everything(Infos.load(file))
    rng = random.Random(0)
    refused = 0
    places = [*range(0, len(content), max(1, len(content) // 150)), *range(len(content) - 40, len(content))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        try:
            assert everything(Infos.load(file)) == expected, place
        except ValueError as error:
            assert "make it again with `bev-data prepare`" in str(error)  # noqa: PT017
            refused += 1
    assert refused == len(places)


def test_no_file_that_was_cut_is_believed(file):
    content = file.read_bytes()
    for length in [0, 1, 23, 24, *np.linspace(100, len(content) - 1, 30).astype(int)]:
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"infos\.arrow"):
            Infos.load(file)


def test_a_file_cut_short_while_it_is_open_is_one_sentence(mini_val, tmp_path):
    """Not the end of the process by a bus error."""
    infos = mini_val.save(tmp_path / "infos.arrow")
    os.truncate(infos.path, 100)
    with pytest.raises(ValueError, match="it was changed while it was in use"):
        infos[1]


def test_a_file_is_checked_where_it_is_read(mini_val, tmp_path):
    """Opening a large file must not read all of it: a damaged last row leaves the first to be read."""
    many = Infos.from_list(list(mini_val)[:1] * 3000, version="v1.0-mini", split="mini_val")
    path = many.save(tmp_path / "infos.arrow").path
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)
    infos = Infos.load(path)
    assert infos[0].token == mini_val[0].token
    with pytest.raises(ValueError, match=f"its bytes from {place // 2**15 * 2**15} on are damaged"):
        list(infos)


def test_a_damaged_file_is_made_anew(database, tmp_path):
    cache = tmp_path / "infos"
    before = everything(open_infos(database, "v1.0-mini", "mini_val", cache, progress=False))
    (path,) = cache.iterdir()
    for damage in (b"", b"nothing of it", path.read_bytes()[:-1]):
        path.write_bytes(damage)
        assert everything(open_infos(database, "v1.0-mini", "mini_val", cache, progress=False)) == before


def test_what_is_damaged_is_not_saved_again(mini_val, tmp_path):
    """It would get checksums that hold."""
    path = tmp_path / "infos.arrow"
    Infos.from_list(list(mini_val)[:1] * 3000, version="v1.0-mini", split="mini_val").save(path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"vehicle.")] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="are damaged"):
        Infos.load(path).save(tmp_path / "copy.arrow")
    assert not (tmp_path / "copy.arrow").exists()


def crafted(path, change):
    """A file whose checksums hold and whose contents were changed by somebody."""
    source = pa.ipc.open_file(
        pa.py_buffer(path.read_bytes()[: -(20 + 4 * (path.stat().st_size // 2**15 + 1))])
    )
    batch = change(source.get_batch(0))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with path.open("r+b") as out:
        append_checksums(out)


def _replace(name, values):
    def change(batch):
        columns = [
            values(c) if n == name else c for n, c in zip(batch.schema.names, batch.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)

    return change


def _far_lists(column):
    offsets = column.offsets.to_numpy().copy()
    offsets[1] = 2**30
    return pa.Array.from_buffers(
        column.type, len(column), [None, pa.py_buffer(offsets)], children=[column.values]
    )


def _far_strings(column):
    _, offsets, text = column.buffers()
    far = np.frombuffer(offsets, np.int32).copy()
    far[1] = -(2**30)
    return pa.Array.from_buffers(pa.string(), len(column), [None, pa.py_buffer(far), text])


def _no_text(column):
    _, offsets, text = column.buffers()
    return pa.Array.from_buffers(pa.string(), len(column), [None, offsets, pa.py_buffer(b"\xff" * text.size)])


@pytest.mark.parametrize(
    "change",
    [
        _replace("prev", lambda c: pa.array(range(len(c)), pa.int32())),
        _replace("prev", lambda c: pa.array([-7] * len(c), pa.int32())),
        _replace("images", _far_lists),
        _replace("annotations", _far_lists),
        _replace("token", _far_strings),
        _replace("token", _no_text),
        lambda batch: batch.rename_columns([f"{name}x" for name in batch.schema.names]),
        lambda batch: batch.replace_schema_metadata({FORMAT_KEY: "2"}),
        lambda batch: batch.replace_schema_metadata({FORMAT_KEY: "2", "cameras": "{", "version": "x"}),
        lambda batch: batch.replace_schema_metadata({FORMAT_KEY: "1"}),
        lambda batch: pa.RecordBatch.from_pylist([{"a": 1}], schema=pa.schema([("a", pa.int8())])),
    ],
)
def test_a_crafted_file_is_refused(file, change):
    assert len(SCHEMA) == 7
    crafted(file, change)
    with pytest.raises(ValueError, match=r"infos\.arrow"):
        everything(Infos.load(file))
