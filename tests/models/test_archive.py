"""Checkpoints that were changed or cut: no other weights are loaded in silence."""

import io
import pathlib
import random
import zipfile

import pytest
import torch

from bev_models.weights import read_file


@pytest.fixture
def content() -> bytes:
    file = io.BytesIO()
    generator = torch.Generator().manual_seed(0)
    state = {f"layer{i}.weight": torch.randn(16, 16, generator=generator) for i in range(6)}
    torch.save({"state_dict": state}, file)
    return file.getvalue()


def test_changed_checkpoints_are_refused(content: bytes, tmp_path: pathlib.Path):
    """A bit of each of 300 bytes: what loads is what was saved."""
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    expected = {key: value.clone() for key, value in read_file(path)["state_dict"].items()}
    rng, refused = random.Random(0), 0
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path = tmp_path / "changed.ckpt"
        path.unlink(missing_ok=True)
        path.write_bytes(changed)
        try:
            state = read_file(path)["state_dict"]
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
        else:
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert refused > 250


def test_checkpoints_that_were_cut_are_refused(content: bytes, tmp_path: pathlib.Path):
    for length in [0, 1, 3, 4, 5, 30, *range(100, len(content), len(content) // 40)]:
        path = tmp_path / f"{length}.ckpt"
        path.write_bytes(content[:length])
        with pytest.raises(
            ValueError, match=r"must be a whole file of torch\.save or safetensors, got .*ckpt"
        ):
            read_file(path)


def test_what_could_unpack_to_any_size_is_refused(content: bytes, tmp_path: pathlib.Path):
    path = tmp_path / "packed.ckpt"
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in source.namelist():
            out.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="must be a whole file"):
        read_file(path)
