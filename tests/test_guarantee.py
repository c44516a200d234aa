"""The guarantee to users: servers with different backends, chunk sizes and threads serve the same bytes."""

import numpy as np
import pytest

import seedbed

SPECS = [
    seedbed.spec("uniform", (301, 77), a=-0.5, b=2.0, seed=5, name="uniform", dtype="float16"),
    seedbed.spec("normal", (300, 1001), std=0.02, seed=2**64 - 1, name="normal"),
    seedbed.spec("trunc_normal", (50_001,), std=0.02, seed=1, name="trunc_normal", dtype="bfloat16"),
    seedbed.spec("xavier_uniform", (33, 17, 3, 3), seed=7, name="xavier", dtype="float64"),
    seedbed.spec("kaiming_normal", (64, 3, 7, 7), mode="fan_out", nonlinearity="relu", name="kaiming"),
    seedbed.spec("orthogonal", (96, 130), gain=1.5, name="orthogonal"),
    seedbed.spec("sparse", (128, 70), sparsity=0.3, name="sparse"),
    seedbed.spec("variance_scaling", (40, 30), scale=2.0, mode="fan_avg", distribution="truncated_normal", name="s"),
    seedbed.spec("dirac", (6, 2, 3), groups=3, name="dirac"),
    seedbed.spec("eye", (31, 40), name="eye", dtype="bfloat16"),
    seedbed.spec(
        "variance_scaling",
        (201, 101),
        scale=1,
        mode="fan_in",
        distribution="truncated_normal",
        name="disk",
        dtype="complex64",
    ),
    seedbed.spec("constant", (9,), val=0.1, name="constant", dtype="float16"),
]

OTHERS = [
    {"backend": "numba", "threads": 1, "chunk_bytes": 1 << 20},
    {"backend": "numba", "threads": 2, "chunk_bytes": 4096},
    {"backend": "numpy", "threads": 2, "chunk_bytes": 1000},
    {"backend": "cupy", "chunk_bytes": 4096},
]


@pytest.mark.parametrize("options", OTHERS, ids=lambda options: "-".join(map(str, options.values())))
def test_servers_give_the_same_bytes(start_server, server, options):
    """The reference ``server`` has the numpy backend and chunks of 1 MiB."""
    with seedbed.connect(server) as one, seedbed.connect(start_server(**options).target) as other:
        for (name, ours), (_, theirs) in zip(one.init_model(SPECS), other.init_model(SPECS), strict=True):
            assert ours.tobytes() == theirs.tobytes(), name


def test_another_server_resumes_a_stream(start_server, server):
    other = start_server(backend="numba", chunk_bytes=4096)
    with seedbed.connect(server) as one, seedbed.connect(other.target) as two:
        for spec in SPECS:
            whole = one.init(spec).reshape(-1)
            middle = whole.size // 3
            rest = [values for _, values in two.iter_chunks(spec, first_element=middle)]
            assert np.concatenate([whole[:middle], *rest]).tobytes() == whole.tobytes(), spec.name


def test_shards_of_ranks_fit_together(start_server, server):
    """Uneven column shards from one server and row shards from another make the same tensor."""
    spec = seedbed.spec("kaiming_uniform", (97, 53), seed=3, name="w", dtype="bfloat16")
    other = start_server(backend="numba", chunk_bytes=512)
    with seedbed.connect(server) as one, seedbed.connect(other.target) as two:
        rows = [one.init(spec, region=np.s_[i : i + 25, :]) for i in (0, 25, 50)]
        rows.append(one.init(spec, region=np.s_[75:97, :]))
        columns = [two.init(spec, region=np.s_[:, low:high]) for low, high in ((0, 1), (1, 30), (30, 53))]
    assert np.concatenate(rows).tobytes() == np.concatenate(columns, axis=1).tobytes()
