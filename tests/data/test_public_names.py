"""The public names at the top of the package, and what help and imports load."""

import subprocess
import sys

import pytest

import bev_data

HEAVY = {"numpy", "torch", "numba", "cv2", "pyarrow", "PIL", "nuscenes", "jaxtyping", "msgspec", "tqdm"}


def test_every_public_name_is_there_and_others_are_not():
    assert all(getattr(bev_data, name) is not None for name in bev_data.__all__)
    assert set(bev_data.__all__) == set(bev_data._MODULE_OF)
    assert set(bev_data.__all__) <= set(dir(bev_data))
    with pytest.raises(AttributeError, match="NuScenes"):
        _ = bev_data.NuScenes


@pytest.mark.parametrize(
    "code",
    [
        "import bev_data",
        "from bev_data.commands.main import main; main(['--help'])",
        "from bev_data.commands.main import main; main(['synth', '--help'])",
        "from bev_data.commands.main import main; main(['prepare', 'ROOT', '--workers', '0'])",
    ],
)
def test_help_and_wrong_options_load_no_library(code):
    watched = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & HEAVY
    # Python itself and its standard library stay below 250.
    assert len(loaded) < 250
