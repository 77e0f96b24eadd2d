"""HLO text against hand-counted programs and programs that JAX compiled; group notations against each other."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from gigafactory.train.hlo import Contents, read_contents
from gigafactory.train.hlo_text import HloError, Shape, parse_module
from gigafactory.train.replica_groups import iota_notation, parse_pairs, parse_replica_groups, replica_group_members

REDUCE = (
    "%reduce.1 = f32[8]{0} all-reduce(f32[8]{0} %x.1), channel_id=1, replica_groups={{0,1},{2,3},{4,5},{6,7}},"
    " use_global_device_ids=true, to_apply=%add.1,"
    """ metadata={op_name="jit(f)/transpose(jvp())/while/body/p[\\'a(\\']" stack_frame_id=3}"""
)
LOOP = """HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}, num_partitions=8

%body.1 (p.1: (s32[], f32[8], s32[])) -> (s32[], f32[8], s32[]) {
  %p.1 = (s32[], f32[8]{0}, /*index=2*/s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %step.1 = s32[] constant(2)
  %next.1 = s32[] add(%i.1, %step.1)
  %x.1 = f32[8]{0:T(256)} get-tuple-element(%p.1), index=1
  %n.1 = s32[] get-tuple-element(%p.1), index=2
  REDUCE
  ROOT %t.1 = (s32[], f32[8]{0}, s32[]) tuple(%next.1, %reduce.1, %n.1)
}

%cond.1 (p.2: (s32[], f32[8], s32[])) -> pred[] {
  %p.2 = (s32[], f32[8]{0}, s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.2), index=0
  %n.2 = s32[] get-tuple-element(%p.2), index=2
  ROOT %lt.2 = pred[] compare(%i.2, %n.2), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %start = s32[] constant(1)
  %bound = s32[] constant(BOUND)
  %init = (s32[], f32[8]{0}, s32[]) tuple(%start, %a, %bound)
  %loop = (s32[], f32[8]{0}, s32[]) while(%init), condition=%cond.1, body=%body.1ANNOTATION
  ROOT %out = f32[8]{0} get-tuple-element(%loop), index=1
}
""".replace("REDUCE", REDUCE)
MESH = {"stage": 1, "data": 2, "expert": 2, "context": 1, "model": 2}


def entry(*lines: str, more: str = "") -> str:
    """A module with these lines as its entry computation."""
    return f"HloModule m\n{more}\nENTRY %main () -> f32[] {{\n" + "\n".join(f"  {line}" for line in lines) + "\n}\n"


def only(text: str, mesh: dict[str, int] = MESH) -> Contents:
    return read_contents(text, mesh)


@pytest.mark.parametrize(
    ("bound", "annotation", "turns"),
    [
        ("10", "", 5),
        ("11", "", 5),
        ("12", "", 6),
        ("1", "", 0),
        ("10", ', backend_config={"known_trip_count":{"n":"7"},"dynamic_variables":[]}', 7),
    ],
)
def test_loop_turns_are_read_from_counter_or_annotation(bound: str, annotation: str, turns: int) -> None:
    found = only(LOOP.replace("BOUND", bound).replace("ANNOTATION", annotation))
    assert [c.count for c in found.collectives] == ([turns] if turns else [])
    assert not found.unknown_loops


def test_loop_without_a_known_count_is_counted_once_and_named() -> None:
    text = LOOP.replace("%bound = s32[] constant(BOUND)", "%bound = s32[] parameter(1)").replace("ANNOTATION", "")
    found = only(text)
    assert found.collectives[0].count == 1
    assert found.unknown_loops == ("loop",)


def test_all_reduce_by_hand() -> None:
    (found,) = only(LOOP.replace("BOUND", "3").replace("ANNOTATION", "")).collectives
    assert (found.kind, found.axes, found.dtype, found.shape) == ("all-reduce", ("model",), "f32", (8,))
    assert (found.payload_bytes, found.wire_bytes, found.group_size) == (32, 32.0, 2)
    assert found.groups == "[4,2]<=[2,2,2]"
    assert found.where == "jit(f)/transpose(jvp())/while/body/p['a(']"
    assert found.phase == "backward"


IOTA = "replica_groups=[2,4]<=[2,4], use_global_device_ids=true"


@pytest.mark.parametrize(
    ("line", "kind", "dtype", "payload", "wire"),
    [
        (f"%c = bf16[4,6]{{1,0}} all-gather(%x), channel_id=1, {IOTA}, dimensions={{0}}", "all-gather", "bf16", 48, 36),
        (f"%c = bf16[3] reduce-scatter(%x), {IOTA}, dimensions={{0}}, to_apply=%a", "reduce-scatter", "bf16", 24, 18),
        (f"%c = f32[4,2] all-to-all(%x), {IOTA}, dimensions={{0}}", "all-to-all", "f32", 32, 24),
        (f"%c = (s8[5], s8[5], s8[5], s8[5]) all-to-all(%x, %x, %x, %x), {IOTA}", "all-to-all", "s8", 20, 15),
        (f"%c = (f32[5], bf16[2,3]) all-reduce(%x, %y), {IOTA}, to_apply=%a", "all-reduce", "f32+bf16", 32, 48),
        (f"%c = f32[5] all-reduce-start(%x), {IOTA}, to_apply=%a", "all-reduce", "f32", 20, 30),
        (f"%c = (f32[2], f32[8]) all-gather-start(%x), {IOTA}, dimensions={{0}}", "all-gather", "f32", 32, 24),
        (
            f"%c = ((f32[2], u8[2]), (f32[8], u8[8])) all-gather-start(f32[2]{{0}} %x, u8[2] %y), {IOTA}",
            "all-gather",
            "f32+u8",
            40,
            30,
        ),
        (
            "%c = (f8e5m2[6], f8e5m2[6], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}",
            "collective-permute",
            "f8e5m2",
            6,
            6,
        ),
    ],
)
def test_bytes_of_each_form(line: str, kind: str, dtype: str, payload: int, wire: float) -> None:
    (found,) = only(entry(line, "ROOT %d = f32[] all-reduce-done(%c)")).collectives
    assert (found.kind, found.dtype, found.payload_bytes, found.wire_bytes) == (kind, dtype, payload, wire)


def test_asynchronous_wrapper_call_and_branches_are_followed() -> None:
    inner = "%c = f32[2] reduce-scatter(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}, to_apply=%a"
    more = f"%wrapped (p: f32[4]) -> f32[2] {{\n  %p = f32[4] parameter(0)\n  ROOT {inner}\n}}\n"
    text = entry(
        "%s = ((f32[4]), f32[2], s32[]) async-start(%x), calls=%wrapped",
        "%d = f32[2] async-done(%s)",
        "%l = f32[2] call(%x), to_apply=%wrapped",
        "ROOT %b = f32[2] conditional(%i, %x, %x), branch_computations={%wrapped, %wrapped}",
        more=more,
    )
    found = only(text).collectives
    assert [(c.payload_bytes, c.conditional) for c in found] == [(16, False), (16, False), (16, True), (16, True)]


def test_collective_on_one_device_moves_nothing_and_is_left_out() -> None:
    line = "ROOT %c = f32[2] all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%a"
    assert only(entry(line)).collectives == ()


def test_matmuls_by_hand() -> None:
    text = entry(
        "%x = bf16[3,4,5] parameter(0)",
        "%y = bf16[3,5,6] parameter(1)",
        "%w = f32[2,7,6] parameter(2)",
        "%b = bf16[3,4,6] dot(%x, %y), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0},"
        ' rhs_contracting_dims={1}, metadata={op_name="jit(f)/jvp()/dot"}',
        "%r = f32[10,7] parameter(3)",
        "ROOT %g = f32[10,6] ragged-dot(%r, %w, %n), lhs_contracting_dims={1}, rhs_contracting_dims={1},"
        " lhs_ragged_dims={0}, rhs_group_dims={0}",
    )
    plain, ragged = only(text).matmuls
    assert (plain.batch, plain.m, plain.n, plain.k, plain.dtype, plain.phase) == (3, 4, 6, 5, "bf16", "forward")
    assert (ragged.batch, ragged.m, ragged.n, ragged.k, ragged.phase) == (1, 10, 6, 7, "update")
    assert only(text).matmul_flops == 2 * (3 * 4 * 6 * 5 + 10 * 6 * 7)


def test_custom_calls_are_listed_as_work_that_is_not_counted() -> None:
    text = entry(
        'ROOT %c = f32[2] custom-call(%x), custom_call_target="__cublas$gemm", api_version=API_VERSION_TYPED_FFI'
    )
    assert only(text).opaque == {"__cublas$gemm": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no ENTRY"),
        ("HloModule m\n", "no ENTRY"),
        (entry("ROOT %c = f32[2] all-reduce(%x), replica_groups={{0,9}}"), "device 9 .* mesh has 8"),
        (entry("ROOT %c = f32[2] all-reduce(%x), replica_groups={{0,1},{2}}"), "different sizes"),
        (entry("ROOT %c = f32[2] all-reduce(%x), channel_id=1"), "c: no replica groups"),
        (entry("ROOT %c = f32[2] call(%x), to_apply=%nowhere"), "nowhere"),
        (entry("ROOT %c = f32[2"), "cannot read instruction 'c'"),
        (LOOP.replace("num_partitions=8", "num_partitions=4"), "4 partitions, but the mesh has 8"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, message: str) -> None:
    with pytest.raises(HloError, match=message):
        only(text)


def test_sizes_of_element_types() -> None:
    sizes = {d: Shape(d, (3,)).bytes for d in ("pred", "s4", "u8", "bf16", "f32", "f64", "c128", "f8e5m2", "token")}
    assert sizes == {"pred": 3, "s4": 2, "u8": 3, "bf16": 6, "f32": 12, "f64": 24, "c128": 48, "f8e5m2": 3, "token": 0}
    with pytest.raises(HloError, match="unknown element type"):
        _ = Shape("float", (1,)).bytes


def test_computation_names_without_percent_signs_are_read() -> None:
    text = LOOP.replace("%", "").replace("BOUND", "3").replace("ANNOTATION", "")
    assert parse_module(text).entry == "main"
    assert len(only(text).collectives) == 1


# Groups ------------------------------------------------------------------------------------------------------------


@st.composite
def meshes_and_axes(draw: st.DrawFn) -> tuple[dict[str, int], tuple[str, ...]]:
    names = ("stage", "data", "expert", "context", "model")[: draw(st.integers(1, 5))]
    mesh = {name: draw(st.integers(1, 4)) for name in names}
    return mesh, tuple(name for name in names if mesh[name] > 1 and draw(st.booleans()))


def expected_members(mesh: dict[str, int], axes: tuple[str, ...]) -> np.ndarray:
    """Straight from the meaning: devices that agree in all the other axes."""
    sizes, names = tuple(mesh.values()), list(mesh)
    groups: dict[tuple[int, ...], list[int]] = {}
    for device in range(math.prod(sizes)):
        position = [int(i) for i in np.unravel_index(device, sizes)]
        groups.setdefault(tuple(i for i, n in zip(position, names, strict=True) if n not in axes), []).append(device)
    return np.array(list(groups.values()))


def as_sets(members: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(row) for row in members.tolist()}


@given(meshes_and_axes())
@settings(max_examples=60, deadline=None)
def test_the_three_notations_say_the_same(case: tuple[dict[str, int], tuple[str, ...]]) -> None:
    mesh, axes = case
    members, devices = expected_members(mesh, axes), math.prod(mesh.values())
    lists = "replica_groups={" + ",".join("{" + ",".join(map(str, row)) + "}" for row in members.tolist()) + "}"
    named = ",".join(f"'{name}'={size}" for name, size in mesh.items())
    notations = [
        lists,
        f"replica_groups={iota_notation(mesh, axes)}",
        f"replica_groups=mesh[{named}] {{{', '.join(repr(axis) for axis in axes)}}}",
    ]
    for notation in notations:
        assert as_sets(replica_group_members(notation, devices)) == as_sets(members), notation
        groups = parse_replica_groups(notation + ", use_global_device_ids=true", mesh)
        assert (groups.axes, groups.size, groups.number) == (axes, members.shape[1], members.shape[0])
        assert groups.notation == iota_notation(mesh, axes)


def test_mesh_notation_with_device_order_and_parts_of_axes() -> None:
    devices = "replica_groups=mesh['x'=2,'y'=2], device_ids=(0,2,1,3) {'y'}"
    assert as_sets(replica_group_members(devices, 4)) == {frozenset({0, 2}), frozenset({1, 3})}
    transposed = "replica_groups=mesh['a'=1,'b'=4,'c'=2,'d'=8], device_ids=([4,8,2]T(0,2,1)) {'c'}"
    assert parse_replica_groups(transposed, {"data": 4, "expert": 4, "context": 2, "model": 2}).axes == ("model",)
    part = "replica_groups=mesh['a'=8,'b'=2] {'a':(2)2}"
    # Device 2a + b, a = (high, mid, low) of sizes 2, 2, 2: the part (2)2 is mid.
    expected = {
        frozenset({8 * high + 2 * low + b, 8 * high + 4 + 2 * low + b})
        for high in (0, 1)
        for low in (0, 1)
        for b in (0, 1)
    }
    assert as_sets(replica_group_members(part, 16)) == expected
    groups = parse_replica_groups(part, {"data": 8, "model": 2})
    assert (groups.axes, groups.size) == (("data",), 2)
    assert groups.notation.startswith("{{0,4}")


def test_no_groups_means_all_devices() -> None:
    assert parse_replica_groups("replica_groups={}", MESH).axes == ("data", "expert", "model")


@pytest.mark.parametrize(
    ("pairs", "axes", "notation"),
    [
        ("{{0,1},{1,0},{2,3},{3,2},{4,5},{5,4},{6,7},{7,6}}", ("model",), "model +1, ring"),
        ("{{0,4},{1,5},{2,6},{3,7}}", ("data",), "data +1, line"),
        ("{{0,3},{3,0}}", ("expert", "model"), "2 pairs"),
        ("{}", (), "nothing"),
    ],
)
def test_permutes(pairs: str, axes: tuple[str, ...], notation: str) -> None:
    groups = parse_pairs(f"channel_id=1, source_target_pairs={pairs}, metadata={{}}", MESH)
    assert (groups.axes, groups.notation) == (axes, notation)


def test_backward_shift_of_a_longer_axis() -> None:
    pairs = ",".join(f"{{{i},{(i - 1) % 8}}}" for i in range(8))
    assert parse_pairs(f"source_target_pairs={{{pairs}}}", {"stage": 8}).notation == "stage -1, ring"


# Programs that JAX compiled ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((2, 2, 2), ("data", "expert", "model"), axis_types=(jax.sharding.AxisType.Explicit,) * 3)


def test_compiled_collectives_have_the_axes_that_the_source_names(mesh: jax.sharding.Mesh) -> None:
    axes = [("data",), ("expert",), ("model",), ("data", "expert"), ("data", "model"), ("data", "expert", "model")]

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=P("data", "expert", "model"), out_specs=P(), check_vma=False)
    def program(x: jax.Array) -> list[jax.Array]:
        sums = [jax.lax.psum(x * (i + 2.0), a) for i, a in enumerate(axes)]
        y = jax.lax.all_gather(x, "expert", axis=1, tiled=True)
        y = jax.lax.psum_scatter(y, "model", scatter_dimension=2, tiled=True)
        y = jax.lax.all_to_all(y, ("data", "expert"), split_axis=0, concat_axis=1, tiled=True)
        return [*sums, jax.lax.ppermute(y, "model", [(0, 1)])]

    text = (
        program.lower(jax.ShapeDtypeStruct((16, 4, 8), jnp.float32, sharding=jax.NamedSharding(mesh, P(*mesh.shape))))
        .compile()
        .as_text()
    )
    found = read_contents(text, dict(mesh.shape)).collectives
    reduced = {axis for c in found if c.kind == "all-reduce" for axis in [c.axes]}
    assert reduced == set(axes)
    block = 8 * 2 * 4 * 4  # bytes of x on a device
    others = {c.kind: (c.axes, c.payload_bytes) for c in found if c.kind != "all-reduce"}
    assert others == {
        "all-gather": (("expert",), 2 * block),
        "reduce-scatter": (("model",), 2 * block),
        "all-to-all": (("data", "expert"), block),
        "collective-permute": (("model",), block),
    }


def test_flops_of_a_loop_equal_those_of_the_unrolled_program_and_of_xla() -> None:
    weights = jax.ShapeDtypeStruct((6, 32, 32), jnp.float32)
    x = jax.ShapeDtypeStruct((4, 16, 32), jnp.float32)

    def loss(w: jax.Array, x: jax.Array, unroll: bool) -> jax.Array:
        def layer(h: jax.Array, w: jax.Array) -> tuple[jax.Array, None]:
            return jnp.einsum("btd,bsd,bse->bte", h @ w, h, h), None

        return jnp.sum(jax.lax.scan(layer, x, w, unroll=unroll)[0] ** 2)

    compiled = [
        jax.jit(jax.grad(partial(loss, unroll=unroll), argnums=(0, 1))).lower(weights, x).compile()
        for unroll in (False, True)
    ]
    looped, flat = (read_contents(c.as_text(), {"data": 1}) for c in compiled)
    assert not looped.unknown_loops
    forward = 6 * 2 * (64 * 32 * 32 + 2 * 4 * 16 * 16 * 32)
    assert looped.matmul_flops == flat.matmul_flops == flat.matmul_flops_without_loops == 3 * forward
    assert looped.matmul_flops_without_loops < 0.5 * looped.matmul_flops
    # XLA counts element-wise work too, so its count of the flat program is a little above.
    assert 1.0 <= compiled[1].cost_analysis()["flops"] / flat.matmul_flops <= 1.1
