"""The commands of `bev-train` that the documents show have keys and values that exist."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "packages/bev-train/README.md", *sorted((ROOT / "docs").glob("*.md"))]
# `bev-train fit ...`, also behind srun or as `torchrun ... -m bev_train.cli fit ...`.
COMMAND = re.compile(
    r"^(?:[\w-]+ .*?)?(?:bev-train|-m bev_train\.cli) ((?:fit|validate|test|predict) .*)$", re.M
)


def commands():
    for path in DOCUMENTS:
        for block in re.findall(r"^```\n(.*?)^```$", path.read_text(), re.DOTALL | re.M):
            for line in COMMAND.findall(block.replace("\\\n", " ")):
                yield path, shlex.split(line, comments=True)


def files():
    """Configs that the documents show, by the name in their first line."""
    for path in DOCUMENTS:
        for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.DOTALL | re.M):
            if name := re.match(r"# (\w+\.yaml)\n", block):
                yield name[1], block


def test_documents_show_commands():
    assert len(list(commands())) > 12


@pytest.mark.parametrize(
    ("path", "arguments"), [pytest.param(*c, id=f"{c[0].name}: {' '.join(c[1])[:60]}") for c in commands()]
)
def test_command_is_understood(path, arguments, tmp_path, monkeypatch, capsys):
    from bev_train.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("my", "overlay"):
        (tmp_path / f"{name}.yaml").write_text("base: quickstart\n")
    for name, text in files():
        (tmp_path / name).write_text(text)
    arguments = ["quickstart" if argument == "CONFIG" else argument for argument in arguments]
    code = main([*arguments, "--print_config"])
    assert code == 0, capsys.readouterr().err
