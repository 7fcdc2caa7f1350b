"""Files of torch.save: nothing in them is run, and none takes more than an embedding needs."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import subprocess
import time
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_files import parameter_dict, torch_saved
from torch import Tensor, nn

from ti_train.errors import UserError
from ti_train.formats import load_embedding
from ti_train.formats.stand_ins import STAND_INS
from ti_train.formats.torch_files import read_torch, torch_bytes

VECTORS = torch.arange(6.0).reshape(2, 3)


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def unpacking_to_more_than_it_says() -> bytes:
    """A zip whose entry says that it has 100 bytes and has 2^24, compressed with LZMA."""
    data = zipped({"a/data.pkl": bytes(2**24)}, zipfile.ZIP_LZMA)
    return data.replace(struct.pack("<I", 2**24), struct.pack("<I", 100))


def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_pickle(program: bytes, **storages: bytes) -> bytes:
    """A file of torch.save whose data.pkl is this program."""
    return zipped({"archive/data.pkl": program, **{f"archive/data/{key[1:]}": data for key, data in storages.items()}})


def legacy_with_pickle(program: bytes) -> bytes:
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return head + program + pickle.dumps([], 2)


class Calls:
    """Asks the reader of its pickle to call something."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "view",
    [
        *(VECTORS, VECTORS.t(), VECTORS[1:], VECTORS[:, 1], VECTORS[:1].expand(2, 3)),
        *(VECTORS.half(), VECTORS.bfloat16(), VECTORS.double()),
    ],
    ids=["plain", "transposed", "offset", "column", "repeated", "fp16", "bf16", "fp64"],
)
def test_tensors_come_back_whatever_their_strides_and_types(view, legacy):
    read = read_torch(torch_saved({"a": view, "b": [view, 3]}, legacy))
    assert torch.equal(read["a"], view)
    assert read["a"].dtype == view.dtype
    assert torch.equal(read["b"][0], view)
    assert read["b"][1] == 3


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles_is_read(protocol):
    file = io.BytesIO()
    torch.save({"name": "wörd", "v": VECTORS, "few": {1, 2}}, file, pickle_protocol=protocol)
    read = read_torch(file.getvalue())
    assert (read["name"], read["v"].tolist()) == ("wörd", VECTORS.tolist())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_parameter_dict_is_read_as_a_dict(legacy):
    """torch.load(weights_only=True) refuses it."""
    data = torch_saved(parameter_dict(star=VECTORS), legacy)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(data), weights_only=True)
    assert torch.equal(read_torch(data)["*"], VECTORS)


def test_a_file_of_torch_1_11_is_read():
    """Written by torch 1.11.0 itself, as rinongal's script does."""
    read = load_embedding(Path(__file__).with_name("torch-1.11.pt"))
    assert torch.equal(read.vectors["emb_params"], torch.arange(8.0).reshape(2, 4) / 8)


class OfAnAppleGPU:
    """Pickled as torch 1.12 and 1.13 pickle a tensor on the device mps."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __reduce__(self):
        return torch._utils._rebuild_device_tensor_from_numpy, (self.values.numpy(), torch.float32, "mps:0", False)


@pytest.mark.parametrize("module", [b"numpy.core.", b"numpy._core."], ids=["numpy 1", "numpy 2"])
def test_an_embedding_of_an_apple_gpu_is_read(module):
    program = pickle.dumps({"string_to_param": {"*": OfAnAppleGPU(VECTORS)}, "step": 500}, 2)
    read = read_torch(with_pickle(re.sub(rb"numpy\._?core\.", module, program)))
    assert torch.equal(read["string_to_param"]["*"], VECTORS)


def with_attribute(tensor: Tensor) -> Tensor:
    tensor.note = "hello"
    return tensor


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (np.int64(500), 500),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.arange(6.0).reshape(2, 3), VECTORS.double()),
        (np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)), VECTORS),
        (np.array(["text"]), None),
        (np.array([{}]), None),
        (with_attribute(VECTORS.clone()), VECTORS),
        (with_attribute(nn.Parameter(VECTORS)), VECTORS),
        (VECTORS.to(torch.float8_e4m3fn), VECTORS.to(torch.float8_e4m3fn)),
        (nn.ParameterList([nn.Parameter(VECTORS)]), {"0": VECTORS}),
        (defaultdict(list, {"a": 1}), {"a": 1}),
        (torch.float32, torch.float32),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_other_loaders_let_through_is_read(value, read, legacy):
    def same(one, other) -> bool:
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(same(v, other[key]) for key, v in one.items())
        return torch.equal(one.float(), other.float()) if isinstance(one, Tensor) else one == other

    try:
        saved = torch_saved({"v": VECTORS, "beside": value}, legacy)
    except KeyError:
        pytest.skip("this PyTorch saves no such dtype")
    found = read_torch(saved)
    assert torch.equal(found["v"], VECTORS)
    assert same(found["beside"], read)


def test_a_device_says_nothing():
    assert torch.equal(read_torch(torch_saved({"v": VECTORS, "device": torch.device("cpu")}))["v"], VECTORS)


def test_what_is_written_has_only_the_entries_that_a1111s_safe_loader_knows():
    allowed = re.compile(r"^([^/]+)/((data/\d+)|version|(data\.pkl))$")
    content = {"string_to_param": {"*": VECTORS}, "step": 3, "name": "cat"}
    written = torch_bytes(content)
    assert all(allowed.match(name) for name in entries_of(written))
    read = torch.load(io.BytesIO(written), weights_only=True)
    assert torch.equal(read["string_to_param"]["*"], VECTORS)
    assert written == torch_bytes(content), "the same word is the same file"


# --- Hostile files --------------------------------------------------------------

EVIL = "touch evil"


def doubled_tuples(ending: bytes) -> bytes:
    """A pickle with 64 tuples, each of which has the one before twice; the last is in the memo's place 64."""
    levels = b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(64))
    return b"\x80\x02)q\x000" + levels + ending


def doubled_frozensets() -> bytes:
    """A dict with two equal keys, to compare which takes 2^40 comparisons."""
    program = b"\x80\x04}"
    for place in (0, 100):
        program += b"(K\x01\x91q%c0(K\x02\x91q%c0" % (place, place + 1)
        for a in range(place, place + 80, 2):
            program += b"(h%ch%c\x91q%c0(h%ch%cK%c\x91q%c0" % (a, a + 1, a + 2, a, a + 1, a - place + 3, a + 3)
    return program + b"h\x50Nsh\xb4Ns."


TEXT = b"X" + struct.pack("<I", 500_000) + b"a" * 500_000  # of 500,000 letters
CALLS = {
    "os.system": Calls(os.system, EVIL),
    "subprocess": Calls(subprocess.check_output, ["touch", "evil"]),
    "eval": Calls(eval, "open('evil', 'w')"),
    "exec": Calls(exec, "open('evil', 'w')"),
    "open": Calls(open, "evil", "w"),
    "getattr": Calls(getattr, "", "join"),
    "torch.load": Calls(torch.load, "evil"),
    "numpy.load": Calls(np.load, "evil"),
    "numpy.fromfile": Calls(np.fromfile, "evil"),
    "numpy.fromfunction": Calls(np.fromfunction, print, (1,)),
    "a type, rebuilt": Calls(torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (EVIL,), None),
}
PROGRAMS = {
    "INST": b"(S'touch evil'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch evil'\no.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0atouch evil\x85R.",
    "EXT1": b"\x80\x02\x82\x01)R.",
    "PERSID": b"Pevil\n.",
    "REDUCE of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "NEWOBJ of a function": b"\x80\x02ctorch._utils\n_rebuild_parameter\n)\x81.",
    "BYTEARRAY8 of 64 GiB": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".",
    "BINBYTES8 of 64 GiB": b"\x80\x05\x8e" + struct.pack("<Q", 2**36) + b".",
    "memo 4294967295": b"\x80\x02]r\xff\xff\xff\xff.",
    "empty stack": b"\x80\x02a.",
    "no end": b"\x80\x02}",
    "protocol 99": b"\x80\x63N.",
    "number of 100000 digits": b"I" + b"1" * 100_000 + b"\n.",
    "nested 100000 deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "doubled 40 times": b"\x80\x02]q\x00" + b"".join(b"](h%ch%ce0q%c" % (i, i, i + 1) for i in range(40)) + b".",
    "more than 1 MiB": b"\x80\x02" + b"N0" * 2**20 + b"N.",
    "tensor of no storage": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x02\x85K\x01\x85\x89NtR.",
    "a subclass of a class": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nset\nN(]t}tR.",
    "bytes in another encoding": b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    "an array without content": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n)R.",
    "an array of 2^60": b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n)R(K\x01\x8a\x08"
    + struct.pack("<q", 2**60)
    + b"\x85NNNtb.",
    "doubled tuples as a key": doubled_tuples(b"}h\x40Ns."),
    "doubled tuples in a set": doubled_tuples(b"c__builtin__\nset\n](h\x40e\x85R."),
    "doubled tuples as a key of pairs": doubled_tuples(b"ccollections\nOrderedDict\n]]h\x40aNaa\x85R."),
    "doubled tuples name a storage": doubled_tuples(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nh\x40NNtQ."),
    "a size with doubled tuples as a key": doubled_tuples(b"}ctorch\nSize\n](h\x40h\x40e\x85RNs."),
    "a tensor with doubled tuples as a key": doubled_tuples(
        b"}ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nK\x00NNtQh\x40))tRNs."
    ),
    "doubled frozensets as keys": doubled_frozensets(),
    "tuples 400000 deep as a key": b"\x80\x02}q\x000)" + b"\x85" * 400_000 + b"q\x010h\x00h\x01Ns.",
    "a text encoded 20000 times": b"\x80\x02c_codecs\nencode\nq\x000"
    + TEXT
    + b"q\x010]("
    + b"h\x00h\x01\x85R" * 20_000
    + b"e.",
    "a dict copied 5000 times": b"\x80\x02ccollections\nOrderedDict\nq\x000}("
    + b"".join(b"M%sN" % struct.pack("<H", i) for i in range(60_000))
    + b"uq\x010]("
    + b"h\x00h\x01\x85R" * 5_000
    + b"e.",
    "a number of 500000 bytes as a key": b"\x80\x02}\x8b"
    + struct.pack("<I", 500_000)
    + b"\x01" * 500_000
    + b"q\x010"
    + b"h\x01Ns" * 60_000
    + b".",
    "a text as a size": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    + b"K\x00NNtQK\x00J\x00\x00\x00\x40X\x02\x00\x00\x00aa\x86K\x01K\x01\x86\x89NtR.",
    "set of a list": b"\x80\x02c__builtin__\nset\n](]e\x85R.",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to run in, in which anything that was called would leave the file 'evil'."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "evil").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"], "something was left behind"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_call_is_refused_by_name_and_not_made(here, call, legacy):
    (here / "x.pt").write_bytes(torch_saved({"string_to_param": {"*": VECTORS}, "step": CALLS[call]}, legacy))
    with pytest.raises(
        UserError, match=r"^'x.pt' asks for '[\w.]+', which no embedding needs: .* None of its code was run"
    ):
        load_embedding(here / "x.pt")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("container", [with_pickle, legacy_with_pickle])
def test_a_hostile_program_is_an_error_of_one_sentence(here, program, container):
    (here / "x.pt").write_bytes(container(PROGRAMS[program]))
    began = time.process_time()
    with pytest.raises(UserError, match=r"^'x.pt' [^\n]+$"):
        load_embedding(here / "x.pt")
    assert time.process_time() - began < 5


def test_a_program_cannot_change_our_stand_ins():
    """BUILD sets attributes: here the defaults of the function that makes tensors."""
    target = b"ctorch._utils\n_rebuild_tensor_v2\n"
    state = b"(N}X\x0c\x00\x00\x00__defaults__K\x01\x85st"
    before = {key: dict(vars(value)) for key, value in STAND_INS.items() if hasattr(value, "__dict__")}
    assert read_torch(with_pickle(b"\x80\x02" + target + state + b"b0N.")) is None
    assert {key: dict(vars(value)) for key, value in STAND_INS.items() if hasattr(value, "__dict__")} == before
    assert STAND_INS["torch._utils", "_rebuild_tensor_v2"].__defaults__ is None


def tensor_program(offset: int, shape: tuple[object, ...], stride: tuple[int, ...], copies: int = 1) -> bytes:
    """A list of tensors over storage 0 of fp32."""

    def numbers(values: tuple[object, ...]) -> bytes:
        return b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    offset_bytes = pickle.dumps(offset, 2)[2:-1]
    one = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset_bytes + numbers(shape) + numbers(stride) + b"\x89NtR"
    )
    return b"\x80\x02](" + one * copies + b"e."


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "copies"),
    [
        (0, (7,), (1,), 1),
        (5, (2,), (1,), 1),
        (-1, (2,), (1,), 1),
        (0, (-2,), (1,), 1),
        (5, (2,), (-1,), 1),
        (0, (2**40,), (0,), 1),
        (0, (2, 3), (1,), 1),
        (0, (2**13, 2**10), (0, 0), 3),
        (0, (1,), (1,), 1001),
        (2**70, (1,), (1,), 1),
        (0, (2**60,) * 50_000, (0,) * 50_000, 1),
    ],
    ids=[
        "too long",
        "over the end",
        "before",
        "negative",
        "backwards",
        "2^40",
        "ragged",
        "24 Mi",
        "1001",
        "far",
        "50000-D",
    ],
)
def test_a_tensor_that_its_storage_does_not_hold_is_refused(here, offset, shape, stride, copies):
    (here / "x.pt").write_bytes(with_pickle(tensor_program(offset, shape, stride, copies), _0=bytes(24)))
    with pytest.raises(UserError, match=r"^'x.pt' (is not a readable embedding, or it is damaged|holds more tensors)"):
        load_embedding(here / "x.pt")


def test_nothing_is_computed_of_sizes_that_are_not_all_numbers(here):
    """A text times a number is a long text."""
    (here / "x.pt").write_bytes(with_pickle(tensor_program(0, ("text", 3), (3, 1)), _0=bytes(24)))
    with pytest.raises(UserError, match="a tensor has sizes of no embedding"):
        load_embedding(here / "x.pt")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (zipped({"a.txt": b"x"}), "is a zip file that torch.save did not write"),
        (zipped({"a/data.pkl": b"N.", "b/data.pkl": b"N."}), "is a zip file that torch.save did not write"),
        (zipped({"a/data.pkl": bytes(2**24)}, zipfile.ZIP_DEFLATED), "is a compressed zip, which torch.save never"),
        (unpacking_to_more_than_it_says(), "is a compressed zip, which torch.save never"),
        (zipped({"a/data.pkl": bytes(2**21)}), "its pickle alone has more than 1 MiB"),
        (with_pickle(tensor_program(0, (6,), (1,))), "is not a readable embedding, or it is damaged"),
        (torch_saved({"v": VECTORS})[:-30], "is not a readable embedding, or it is damaged"),
        (torch_saved({"v": VECTORS}, legacy=True)[:-5], "is not a readable embedding, or it is damaged"),
    ],
)
def test_a_container_that_is_wrong_is_refused(here, data, why):
    (here / "x.pt").write_bytes(data)
    with pytest.raises(UserError, match=why):
        load_embedding(here / "x.pt")
