"""Sharded checkpoints: compatibility with Hugging Face's libraries, workers, resuming and verification."""

import functools
import hashlib
import json
import os
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from _helpers.command import process
from _helpers.waiting import wait_until
from google.protobuf import json_format
from safetensors import safe_open

import seedbed
from seedbed._files import checkpoints
from seedbed._files.safetensors import read_safetensors
from seedbed._inside.cpu import LocalClient
from seedbed.v1 import Model

INDEX = "model.safetensors.index.json"
TENSORS = [
    *(
        {"name": f"layers.{i}.{name}", "shape": shape, "seed": 7, **scheme}
        for i in range(3)
        for name, shape, scheme in [
            ("weight", [64, 128], {"kaimingNormal": {"mode": "FAN_MODE_FAN_OUT"}}),
            ("bias", [64], {"zeros": {}}),
        ]
    ),
    {"name": "double", "shape": [33], "dtype": "DATA_TYPE_FLOAT64", "normal": {}},
    {"name": "large", "shape": [64, 512], "dtype": "DATA_TYPE_BFLOAT16", "normal": {"std": 0.02}},
    {"name": "empty", "shape": [0, 3], "ones": {}},
    {"name": "scalar", "shape": [], "ones": {}},
]
SIZE = "60KB"
FILES = [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]  # the files of that size


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEEDBED_TARGET", raising=False)
    write_model("m.json", TENSORS)


@pytest.fixture
def checkpoint(ok):
    ok("model", "m.json", "-o", "ckpt", "--max-shard-size", SIZE)
    return Path("ckpt")


def write_model(path, tensors):
    Path(path).write_text(json.dumps({"name": "m", "tensors": tensors}), encoding="utf-8")


def expected():
    with seedbed.connect("local:") as client:
        return dict(client.init_model(json_format.Parse(Path("m.json").read_text(encoding="utf-8"), Model())))


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def read_all(folder):
    return {k: v for path in Path(folder).glob("*.safetensors") for k, v in safetensors.numpy.load_file(path).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()


# files and index


def test_a_directory_holds_files_and_an_index(checkpoint, ok):
    assert sorted(digests(checkpoint)) == [*FILES, INDEX]
    assert_same(read_all(checkpoint), expected())
    index = json.loads((checkpoint / INDEX).read_text())
    sizes = [array.nbytes for array in expected().values()]
    assert index["metadata"]["total_size"] == sum(sizes)
    for name, file in index["weight_map"].items():
        with safe_open(checkpoint / file, framework="np") as content:
            assert name in content.keys()  # noqa: SIM118 - it is not a dictionary
    assert "ckpt: verified, 4 files, 10 tensors, 161.0 KiB, equal bit for bit (seed 0,7, algorithm" in ok(
        "verify", "ckpt"
    )


def test_a_checkpoint_of_one_file_has_no_index(ok):
    assert "ckpt: 1 file, 10 tensors" in ok("model", "m.json", "-o", "ckpt")
    ok("model", "m.json", "-o", "one.safetensors")
    assert [path.name for path in Path("ckpt").iterdir()] == ["model.safetensors"]
    assert Path("ckpt/model.safetensors").read_bytes() == Path("one.safetensors").read_bytes()
    assert "verified, 1 file, 10 tensors" in ok("verify", "ckpt")


def test_a_model_of_no_tensors_is_one_file(ok):
    write_model("m.json", [])
    ok("model", "m.json", "-o", "ckpt")
    assert "verified, 1 file, 0 tensors" in ok("verify", "ckpt")


def test_a_remote_checkpoint_equals_the_local_one(checkpoint, ok, server):
    ok("model", "m.json", "-o", "remote", "--max-shard-size", SIZE, "--target", server, "--jobs", "1")
    assert digests("remote") == digests(checkpoint)


def test_seed_and_dtype_and_tensors(ok):
    ok(
        "model",
        "m.json",
        "-o",
        "ckpt",
        "--seed",
        "9",
        "--dtype",
        "float16",
        "--tensors",
        "layers.[01].*",
        "--tensors",
        "scalar",
    )
    tensors = read_all("ckpt")
    assert sorted(tensors) == ["layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight", "scalar"]
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float16)}
    assert "(seed 9, algorithm version 1)" in ok("verify", "ckpt")


def test_tensors_of_a_single_file(ok):
    ok("model", "m.json", "-o", "w.safetensors", "--tensors", "*.bias")
    assert len(safetensors.numpy.load_file("w.safetensors")) == 3


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500MB", 5 * 10**8), ("2GiB", 2 << 30), ("1.5 kb", 1500), ("7", 7), ("1TiB", 1 << 40)],
)
def test_sizes(ok, monkeypatch, text, size):
    sizes = []
    plan = checkpoints.plan
    monkeypatch.setattr(checkpoints, "plan", lambda model, most: sizes.append(most) or plan(model, 10**9))
    ok("model", "m.json", "-o", "ckpt", "--max-shard-size", text)
    assert sizes == [size]


REFUSALS = {
    "an invalid size": (("--max-shard-size", "5XB"), "'5XB' is not a size; give a number of bytes, such as 5GB"),
    "no bytes": (("--max-shard-size", "0"), "less than a byte"),
    "an invalid worker": (("--shard", "2"), "'2' is not I/N"),
    "a worker too many": (("--shard", "3/3"), "workers are counted from 0, so give 0/N to N-1/N"),
    "a missing tensor": (("--tensors", "l*", "--tensors", "head*"), "no tensor in m.json matches 'head*'"),
    "no jobs": (("--jobs", "0"), "--jobs"),
    "the size of a single file": (("-o", "w.safetensors", "--max-shard-size", "5GB"), "one file, but --max-shard-size"),
    "a share of a single file": (("-o", "w.safetensors", "--shard", "0/2"), "w.safetensors is one file, but --shard"),
    "a file instead of a directory": (("-o", "m.json"), "m.json is a file; give FILE.safetensors for one file"),
    "a directory instead of a file": (("-o", "d.safetensors"), "d.safetensors is a directory"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(seedbed_command, arguments, message):
    Path("d.safetensors").mkdir()
    code, out, err = seedbed_command("model", "m.json", "-o", "ckpt", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not Path("ckpt").exists()


def test_an_invalid_tensor_is_named_before_anything_is_written(seedbed_command):
    write_model("m.json", [*TENSORS, {"name": "bad", "shape": [3], "normal": {"std": -1}}])
    code, _, err = seedbed_command(
        "model", "m.json", "-o", "ckpt", "--max-shard-size", SIZE, "--tensors", "l*", "--tensors", "bad"
    )
    assert code == 2
    assert f"m.json: tensors[{len(TENSORS)}].normal.std: " in err
    assert not Path("ckpt").exists()


# Hugging Face's libraries


@pytest.mark.parametrize("sizes", [[6, 6, 2, 6, 2, 2], [11, 1, 12, 1], [10, 10], [3], [1] * 25, [0, 11, 0]])
def test_files_are_filled_as_hugging_face_fills_them(sizes):
    hub = pytest.importorskip("huggingface_hub")
    torch = pytest.importorskip("torch")
    tensors = {f"t{i}": torch.empty(size, dtype=torch.float32) for i, size in enumerate(sizes)}
    split = hub.split_torch_state_dict_into_shards(tensors, max_shard_size=40)
    model = Model(tensors=[seedbed.spec("ones", (size,), name=f"t{i}") for i, size in enumerate(sizes)])
    shards = checkpoints.plan(model, 40)
    found = {shard.name: [spec.name for spec in shard.model.tensors] for shard in shards}
    assert found == split.filename_to_tensors


def gpt2(transformers):
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=64, vocab_size=512, n_positions=64)
    return transformers.GPT2LMHeadModel(config)  # lm_head and wte are tied


def llama(transformers):
    config = transformers.LlamaConfig(
        num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


@pytest.mark.slow
@pytest.mark.parametrize("make", [gpt2, llama])
def test_transformers_reads_and_writes_the_same(seedbed_command, make):
    transformers = pytest.importorskip("transformers")
    theirs = make(transformers)
    theirs.save_pretrained("theirs", max_shard_size="100KB")
    index = json.loads(Path("theirs", INDEX).read_text())
    names = [name for name in theirs.state_dict() if name in index["weight_map"]]
    shapes = {name: list(theirs.state_dict()[name].shape) for name in names}
    write_model("m.json", [{"name": name, "shape": shapes[name], "normal": {"std": 0.02}} for name in names])
    assert seedbed_command("model", "m.json", "-o", "ours", "--max-shard-size", "100KB")[0] == 0
    assert Path("ours", INDEX).read_text() == Path("theirs", INDEX).read_text()
    for name in set(index["weight_map"].values()):
        with safe_open(f"ours/{name}", "pt") as our, safe_open(f"theirs/{name}", "pt") as their:
            assert set(our.keys()) == set(their.keys())
            assert our.metadata()["format"] == their.metadata()["format"]

    theirs.config.save_pretrained("ours")
    read, info = type(theirs).from_pretrained("ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = read.state_dict()
    assert_same({name: state[name].numpy() for name in names}, expected())
    assert (read.lm_head.weight is read.get_input_embeddings().weight) == (make is gpt2)


# workers


def test_shares_are_disjoint_complete_and_balanced():
    model = Model(tensors=[seedbed.spec("ones", (size,), name=f"t{size}") for size in range(100, 200)])
    shards = checkpoints.plan(model, 1000)
    for workers in (1, 3, 7, 300):
        shares = [checkpoints.share(shards, worker, workers) for worker in range(workers)]
        assert sorted(shard.name for part in shares for shard in part) == [shard.name for shard in shards]
        loads = [sum(shard.size for shard in part) for part in shares]
        assert max(loads) - min(loads) <= max(shard.size for shard in shards)


def test_workers_write_one_checkpoint_together(checkpoint, ok):
    workers = [
        process("model", "m.json", "-o", "ours", "--max-shard-size", SIZE, "--shard", f"{i}/3") for i in range(3)
    ]
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert (worker.returncode, err) == (0, "")
        assert "ours: " in out
    assert digests("ours") == digests(checkpoint)
    ok("verify", "ours")


def test_the_index_comes_from_the_worker_that_finishes_last(ok, seedbed_command):
    command = ("model", "m.json", "-o", "ckpt", "--max-shard-size", SIZE, "--shard")
    assert "2 of 4 files still missing" in ok(*command, "0/2")
    assert not Path("ckpt", INDEX).exists()
    code, _, err = seedbed_command("verify", "ckpt")
    assert code == 1
    assert err.count(".safetensors: missing") == 2
    assert f"ckpt/{INDEX}: missing" in err
    assert "missing" not in ok(*command, "1/2")
    ok("verify", "ckpt")


# resuming


def test_complete_files_are_kept_and_missing_files_are_written(checkpoint, ok):
    whole = digests(checkpoint)
    before = {name: (checkpoint / name).stat() for name in FILES}
    (checkpoint / FILES[1]).unlink()
    (checkpoint / FILES[2]).write_bytes((checkpoint / FILES[2]).read_bytes()[:-1])
    (checkpoint / INDEX).unlink()
    assert "; 2 files already complete" in ok("model", "m.json", "-o", "ckpt", "--max-shard-size", SIZE)
    assert digests(checkpoint) == whole
    for name in (FILES[0], FILES[3]):
        assert ((checkpoint / name).stat().st_ino, (checkpoint / name).stat().st_mtime_ns) == (
            before[name].st_ino, before[name].st_mtime_ns,
        )  # fmt: skip


OTHERS = {
    "another seed": ("--max-shard-size", SIZE, "--seed", "3"),
    "another dtype": ("--max-shard-size", SIZE, "--dtype", "float64"),
    "another size with the same number of files": ("--max-shard-size", "65540"),
    "another number of files": ("--max-shard-size", "20KB"),
    "one file": (),
    "other tensors": ("--max-shard-size", SIZE, "--tensors", "l*"),
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS.keys())
def test_another_checkpoint_is_not_overwritten(checkpoint, seedbed_command, options):
    (checkpoint / INDEX).unlink()
    whole = digests(checkpoint)
    code, _, err = seedbed_command("model", "m.json", "-o", "ckpt", *options)
    assert code == 2
    assert "belongs to another checkpoint; remove it, or choose another directory" in err
    assert digests(checkpoint) == whole


def test_another_index_is_not_overwritten(checkpoint, seedbed_command):
    (checkpoint / INDEX).write_text("{}")
    code, _, err = seedbed_command("model", "m.json", "-o", "ckpt", "--max-shard-size", SIZE)
    assert code == 2
    assert f"ckpt/{INDEX} belongs to another checkpoint" in err


def big(count, elements):
    write_model("m.json", [{"name": f"t{i}", "shape": [elements], "seed": 1, "normal": {}} for i in range(count)])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_is_resumed(ok, monkeypatch, number):
    big(16, 2_000_000)
    command = ("model", "m.json", "-o", "ckpt", "--max-shard-size", "8MB")
    ok("model", "m.json", "-o", "whole", "--max-shard-size", "8MB")
    with monkeypatch.context() as slow:
        slow.setenv("SEEDBED_BACKEND", "numpy")
        child = process(*command, "--jobs", "2")
    folder = Path("ckpt")
    assert wait_until(lambda: len(list(folder.glob("*.safetensors"))) >= 3 and any(folder.glob(".*.part")), 30)
    child.send_signal(number)
    assert "Traceback" not in child.communicate(timeout=30)[1]
    assert any(folder.glob(".*.part")) == (number == signal.SIGKILL)
    assert not (folder / INDEX).exists()
    finished = {path: path.stat() for path in folder.glob("*.safetensors")}
    assert 3 <= len(finished) < 16

    assert f"; {len(finished)} files already complete" in ok(*command)
    assert digests("ckpt") == digests("whole")  # and no temporary files
    for path, status in finished.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)


def test_a_full_disk_leaves_only_complete_files(ok):
    write_model(
        "m.json",
        [{"name": f"t{i}", "shape": [size], "normal": {}} for i, size in enumerate([1000, 1000, 1_000_000, 1000])],
    )
    command = ("model", "m.json", "-o", "ckpt", "--max-shard-size", "4KB")
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100_000, 100_000))
    child = process(*command, "--jobs", "1", preexec_fn=limit)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (2, "")
    assert err == f"seedbed: {Path('ckpt').resolve() / FILES[1]}: File too large\n"
    assert {path.name for path in Path("ckpt").iterdir()} <= {FILES[0], FILES[2], FILES[3]}
    ok(*command)
    ok("verify", "ckpt")


def patch_visit(monkeypatch, change):
    """Replaces `LocalClient.visit` by ``change(visit, use)``, which passes pieces on to ``use`` in its own way."""
    visit = LocalClient.visit

    def changed(self, model, use, jobs=None, timeout=...):
        change(lambda use: visit(self, model, use, jobs, timeout), use)

    monkeypatch.setattr("seedbed._inside.cpu._VISIT_BYTES", 4096)  # many pieces
    monkeypatch.setattr(LocalClient, "visit", changed)


def shuffled(visit, use):
    """Calls ``use`` with the pieces in a random order."""
    pieces = []
    visit(lambda index, first, values: pieces.append((index, first, values.copy())))
    random.Random(7).shuffle(pieces)
    for piece in pieces:
        use(*piece)


def failing(error):
    """Raises an error after a few pieces."""

    def change(visit, use):
        remaining = iter(range(5))

        def fail(*piece):
            if next(remaining, None) is None:
                raise error
            use(*piece)

        visit(fail)

    return change


def test_pieces_in_any_order_give_the_same_files(checkpoint, ok, monkeypatch):
    patch_visit(monkeypatch, shuffled)
    ok("model", "m.json", "-o", "ours", "--max-shard-size", SIZE)
    assert digests("ours") == digests(checkpoint)


@pytest.mark.parametrize("output", ["ckpt", "one.safetensors"])
@pytest.mark.parametrize(("error", "code"), [(seedbed.errors.Unavailable("gone"), 3), (KeyboardInterrupt(), 130)])
def test_a_failure_in_the_middle_leaves_nothing(seedbed_command, monkeypatch, output, error, code):
    patch_visit(monkeypatch, failing(error))
    found, out, _ = seedbed_command("model", "m.json", "-o", output)
    assert (found, out) == (code, "")
    assert not list(Path().glob("**/*.safetensors"))
    assert not list(Path().glob("**/*.part"))


@pytest.mark.slow
def test_memory_is_bounded_by_chunks(server):
    peaks = []
    for elements in (1 << 20, 1 << 27):
        write_model("m.json", [{"name": "t", "shape": [elements], "dtype": "DATA_TYPE_BFLOAT16", "ones": {}}])
        child = process("model", "m.json", "-o", f"{elements}", "--max-shard-size", "1GB", "--target", server)
        _, status, usage = os.wait4(child.pid, 0)
        child.communicate()
        assert status == 0
        peaks.append(usage.ru_maxrss)
    assert peaks[1] - peaks[0] < 100_000, peaks  # kB, of 256 MiB


# verification


def test_a_corrupted_byte_is_found_and_named(checkpoint, seedbed_command):
    path = checkpoint / FILES[0]
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        begin = json.loads(file.read(length))["layers.0.weight"]["data_offsets"][0]
        file.seek(8 + length + begin + 4 * (3 * 128 + 5))
        file.write(np.float32(0.25).tobytes())
    code, out, err = seedbed_command("verify", "ckpt")
    assert (code, out) == (1, "")
    assert f"{path}: tensor 'layers.0.weight', element [3, 5]: expected " in err
    assert err.count("\n") == 1


def corrupt(path, name, element):
    """Flips a bit of an element."""
    entry = read_safetensors(path).tensors[name]
    itemsize = {"BF16": 2, "F32": 4, "F64": 8, "C64": 8}[entry.dtype]
    with path.open("r+b") as file:
        file.seek(entry.start + element * itemsize)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_the_first_difference_is_reported_whatever_the_order_of_pieces(ok, seedbed_command, monkeypatch):
    ok("model", "m.json", "-o", "one.safetensors")
    path = Path("one.safetensors")
    corrupt(path, "double", 0)  # comes first in the file, but later in the model
    corrupt(path, "layers.1.weight", 128 * 63)
    corrupt(path, "layers.1.weight", 128 * 17 + 3)
    corrupt(path, "layers.1.weight", 128 * 17 + 4)
    patch_visit(monkeypatch, shuffled)
    code, out, err = seedbed_command("verify", path)
    assert (code, out) == (1, "")
    assert f"{path}: tensor 'layers.1.weight', element [17, 3]: expected " in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_a_file_that_is_truncated_during_verification_is_reported(checkpoint, seedbed_command, monkeypatch, jobs):
    def change(visit, use):
        os.truncate(checkpoint / FILES[1], 5000)
        visit(use)

    patch_visit(monkeypatch, change)
    code, _, err = seedbed_command("verify", "ckpt", "--jobs", jobs)
    assert code == 1
    assert err == f"seedbed: verification failed: ckpt/{FILES[1]}: truncated while it was read\n"


def test_all_wrong_files_are_named(checkpoint, ok, seedbed_command):
    ok("model", "m.json", "-o", "other", "--max-shard-size", SIZE, "--seed", "3")
    (checkpoint / FILES[0]).write_bytes((checkpoint / FILES[0]).read_bytes()[:-1])
    (checkpoint / FILES[1]).write_bytes(Path("other", FILES[1]).read_bytes())
    (checkpoint / "more.safetensors").write_bytes(b"")
    (checkpoint / "model-00005-of-00009.safetensors").write_bytes(b"")
    code, _, err = seedbed_command("verify", "ckpt")
    assert code == 1
    named = {line.removeprefix("seedbed: verification failed: ckpt/").split(": ")[0] for line in err.splitlines()}
    assert named == {*FILES[:2], "more.safetensors", "model-00005-of-00009.safetensors"}


INDICES = {
    "a tensor in another file": (lambda i: i["weight_map"].update({"scalar": FILES[0]}), "tensor 'scalar': expected"),
    "a tensor missing": (lambda i: i["weight_map"].pop("scalar"), "tensor 'scalar': expected model-0000"),
    "a tensor too many": (lambda i: i["weight_map"].update({"more": FILES[0]}), "tensor 'more': expected None"),
    "a file too many": (lambda i: i["weight_map"].update({"more": "x.safetensors"}), "tensor 'more': expected None"),
    "another size": (lambda i: i["metadata"].update(total_size=3), "metadata: expected"),
    "nothing": (lambda i: i.clear(), "tensor 'double': expected"),
}


@pytest.mark.parametrize(("change", "message"), INDICES.values(), ids=INDICES.keys())
def test_a_wrong_index(checkpoint, seedbed_command, change, message):
    index = json.loads((checkpoint / INDEX).read_text())
    change(index)
    (checkpoint / INDEX).write_text(json.dumps(index))
    code, _, err = seedbed_command("verify", "ckpt")
    assert code == 1
    assert f"ckpt/{INDEX}: {message}" in err


def test_an_index_that_is_not_json(checkpoint, seedbed_command):
    (checkpoint / INDEX).write_text("{")
    assert f"ckpt/{INDEX}: not JSON" in seedbed_command("verify", "ckpt")[2]


def test_verify_refuses_a_directory_without_a_checkpoint(seedbed_command):
    code, _, err = seedbed_command("verify", ".")
    assert code == 2
    assert "not a checkpoint" in err
