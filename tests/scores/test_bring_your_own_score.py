"""The page on scores from anywhere keeps its promise of a few lines; tests/test_docs.py runs them."""

import pathlib
import re

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "bring_your_own_score.md").read_text()
KINDS = (
    "A function", "flax linen", "flax nnx", "equinox", "Networks that predict", "Flow matching", "A condition",
)  # fmt: skip


def test_eight_lines_for_each_kind():
    sections = {section.split("\n")[0]: section for section in PAGE.split("\n## ")[1:]}
    for kind in KINDS:
        (section,) = (text for title, text in sections.items() if title.startswith(kind))
        blocks = [block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if "geodesic(" in block]
        assert blocks, kind
        for block in blocks:
            lines = [line for line in block.splitlines() if line.strip()]
            assert len(lines) <= 8, f"{kind}: {len(lines)} lines"
            assert "from scoregeo" in block, f"{kind}: a reader who copies it needs its imports"
    assert "scoregeo.adapters.torch" in sections["A PyTorch module"]
