"""The README's examples run as printed, and its files exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
def test_ten_line_example(capsys):
    """In float32, as a user's first session runs it."""
    import jax

    first = EXAMPLES[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    with jax.enable_x64(False):
        exec(compile(first, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("length 5.055")


@pytest.mark.slow
def test_training_example(capsys):
    import jax

    with jax.enable_x64(False):
        exec(compile(EXAMPLES[1].replace("steps=1000", "steps=400, width=32"), "README.md", "exec"), {})
    captured = capsys.readouterr()
    assert "step 400/400" in captured.err
    assert "sigma" in captured.out
    assert float(captured.out.strip().splitlines()[-1]) > 0


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
