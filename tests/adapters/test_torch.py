"""The adapter of torch where torch is not there; ``test_torch_parity.py`` has the rest."""

import sys

import pytest

from scoregeo.adapters import torch as adapter


@pytest.mark.parametrize("missing", ["torch", "torchax"])
def test_what_to_install(missing, monkeypatch):
    if missing == "torchax":
        pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, missing, None)
    adapter._torch.cache_clear()
    with pytest.raises(ImportError, match=r'pip install torch "scoregeo\[torch\]"'):
        adapter.from_torch(object(), (2,))
