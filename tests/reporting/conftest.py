import pytest
from helpers import draw_data, draw_run

from dataset import read_train


@pytest.fixture(scope="session")
def runs_drawn(tmp_path_factory):
    """(folder, Table) of noise photos, and of runs a, a2 (seeds of one) and b, which is better.

    Do not write.
    """
    root = tmp_path_factory.mktemp("report")
    table = read_train(draw_data(root))
    draw_run(root / "a", table.frame, 1.5, seed=1, last_epoch=0.01)
    draw_run(root / "a2", table.frame, 1.5, seed=2, last_epoch=0.02)
    draw_run(root / "b", table.frame, 4.0, seed=3, lr={"": 3e-4})
    return root, table
