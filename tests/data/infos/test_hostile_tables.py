"""Tables whose values would wrap around or lead out of the data root."""

import json

import pytest

from bev_data.errors import InputError
from bev_data.infos.infos import build_infos


@pytest.mark.parametrize(
    ("table", "field", "value"),
    [
        ("sample_data", "height", 2**31),
        ("sample_data", "width", -1),
        ("sample_data", "timestamp", 2**63),
        ("sample", "timestamp", 10**400),
        ("sample_annotation", "num_lidar_pts", 2**64),
        ("sample_data", "filename", "../../../../etc/passwd"),
        ("sample_data", "filename", "/etc/passwd"),
        ("sample_data", "filename", "samples/../../x.jpg"),
        ("sample_data", "filename", None),
    ],
)
def test_a_value_that_no_table_has_is_one_sentence(write_database, tmp_path, table, field, value):
    root = write_database(tmp_path / "data", scenes={"scene-0103": 1})
    path = root / "v1.0-mini" / f"{table}.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row[field] = value
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=rf"{table}\.json"):
        build_infos(root, "v1.0-mini", "mini_val", progress=False)


def test_tables_nested_without_end_are_one_sentence(write_database, tmp_path):
    root = write_database(tmp_path / "data", scenes={"scene-0103": 1})
    (root / "v1.0-mini" / "sample.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"sample\.json"):
        build_infos(root, "v1.0-mini", "mini_val", progress=False)
