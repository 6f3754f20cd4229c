"""The normals of `srk.noise.counter` in one Triton kernel, made where they are used.

A program of the kernel computes the Philox blocks of a stretch of one sample, maps their bits to
normals by Box and Muller, and writes these. Nothing is read but the key of the draw and the
counter of the sample, so the host has nothing to send for a draw.

Importing this module needs the package `triton`, which PyTorch's CUDA builds bring along.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from srk.noise.philox import Key

BLOCKS = 64
"""Philox blocks, of eight words of 32 bits, for each program."""


@triton.jit
def _philox(k0, k1, c0, c1):  # type: ignore[no-untyped-def]
    """Philox4x64-10 of the counters (c0, c1, 0, 0); all words are uint64."""
    c2, c3 = c0 * 0, c0 * 0
    m0 = tl.full(c0.shape, 0xD2E7470EE14C6C93, tl.uint64)
    m1 = tl.full(c0.shape, 0xCA5A826395121157, tl.uint64)
    w0 = tl.full(c0.shape, 0x9E3779B97F4A7C15, tl.uint64)
    w1 = tl.full(c0.shape, 0xBB67AE8584CAA73B, tl.uint64)
    for _ in tl.static_range(10):
        p, upper_p = c0 * m0, tl.umulhi(c0, m0)
        q, upper_q = c2 * m1, tl.umulhi(c2, m1)
        c0, c1, c2, c3 = upper_q ^ c1 ^ k0, q, upper_p ^ c3 ^ k1, p
        k0, k1 = k0 + w0, k1 + w1
    return c0, c1, c2, c3


@triton.jit
def _half(word, upper: tl.constexpr):  # type: ignore[no-untyped-def]
    """The lower or the upper 32 bits of a word, as int32."""
    return ((word >> 32) if upper else word).to(tl.uint32).to(tl.int32, bitcast=True)


@triton.jit
def _store(out, at, j, half, n, r, a):  # type: ignore[no-untyped-def]
    """Write the two normals of pair `j`: radius bits `r`, angle bits `a`."""
    u = (r & 0x7FFFFFFF).to(tl.float32) * 4.656612873077393e-10 + 4.656612873077393e-10
    radius = tl.sqrt(-2.0 * tl.log(u))
    angle = a.to(tl.float32) * 1.4629180792671596e-09  # pi 2^-31
    inside = j < half
    tl.store(out + at + j, tl.cos(angle) * radius, mask=inside)
    tl.store(out + at + half + j, tl.sin(angle) * radius, mask=inside & (half + j < n))


@triton.jit(do_not_specialize=["k0", "k1"])
def _normals(  # type: ignore[no-untyped-def]
    out,
    keys,
    counters,
    k0,
    k1,
    key_stride,
    n,
    half,
    blocks,
    odd: tl.constexpr,
    given: tl.constexpr,
    size: tl.constexpr,
):
    sample = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1) * size + tl.arange(0, size)
    if not given:
        key = keys + sample * key_stride
        k0, k1 = tl.load(key), tl.load(key + 1)
    k0 = k0.to(tl.int64).to(tl.uint64, bitcast=True)
    k1 = k1.to(tl.int64).to(tl.uint64, bitcast=True)
    lo0 = tl.load(counters + 2 * sample).to(tl.uint64, bitcast=True)
    hi0 = tl.load(counters + 2 * sample + 1).to(tl.uint64, bitcast=True)
    zero = tl.zeros([size], tl.uint64)
    k0, k1 = k0 + zero, k1 + zero
    lo = lo0 + b.to(tl.uint64)
    r0, r1, r2, r3 = _philox(k0, k1, lo, hi0 + (lo < lo0).to(tl.uint64))
    # The angles are the second half of the sample's words. With an odd number of blocks that half
    # begins in the middle of a block.
    lo = lo0 + (blocks // 2 + b).to(tl.uint64)
    a0, a1, a2, a3 = _philox(k0, k1, lo, hi0 + (lo < lo0).to(tl.uint64))
    if odd:
        lo = lo0 + (blocks // 2 + b + 1).to(tl.uint64)
        b0, b1, _b2, _b3 = _philox(k0, k1, lo, hi0 + (lo < lo0).to(tl.uint64))
        a0, a1, a2, a3 = a2, a3, b0, b1
    at, j = sample * n, 8 * b
    _store(out, at, j, half, n, _half(r0, False), _half(a0, False))
    _store(out, at, j + 1, half, n, _half(r0, True), _half(a0, True))
    _store(out, at, j + 2, half, n, _half(r1, False), _half(a1, False))
    _store(out, at, j + 3, half, n, _half(r1, True), _half(a1, True))
    _store(out, at, j + 4, half, n, _half(r2, False), _half(a2, False))
    _store(out, at, j + 5, half, n, _half(r2, True), _half(a2, True))
    _store(out, at, j + 6, half, n, _half(r3, False), _half(a3, False))
    _store(out, at, j + 7, half, n, _half(r3, True), _half(a3, True))


def fill(out: torch.Tensor, keys: torch.Tensor | Key, counters: torch.Tensor) -> None:
    """Fill `out` with unit normals.

    Arguments:
        out: float32, contiguous, of shape (batch, n).
        keys: the key of the draw as two numbers, or a tensor with the key of each sample or of all
            of them, int64 of shape (batch or 1, 2).
        counters: the counter of each sample's first block, int64 of shape (batch, 2), low word
            first.
    """
    batch, n = out.shape
    half, blocks = (n + 1) // 2, -(-n // 8)
    grid = (batch, triton.cdiv(-(-half // 8), BLOCKS))
    given = isinstance(keys, tuple)
    table = counters if isinstance(keys, tuple) else keys
    stride = 0 if given or table.shape[0] == 1 else 2
    k0, k1 = keys if isinstance(keys, tuple) else (0, 0)
    odd = blocks % 2 == 1
    _normals[grid](
        out, table, counters, k0, k1, stride, n, half, blocks, odd=odd, given=given, size=BLOCKS
    )


def compile_for(capability: int) -> dict[str, str]:
    """The kernel compiled ahead of time for a compute capability such as 90; no GPU is needed.

    Returns:
        The forms of the code that the compiler passes through, by name ("ptx" among them).
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {
        "out": "*fp32",
        "keys": "*i64",
        "counters": "*i64",
        "k0": "i64",
        "k1": "i64",
        "key_stride": "i32",
        "n": "i32",
        "half": "i32",
        "blocks": "i32",
        "odd": "constexpr",
        "given": "constexpr",
        "size": "constexpr",
    }
    source = ASTSource(_normals, signature, {"odd": True, "given": True, "size": BLOCKS})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    return {name: text for name, text in made.asm.items() if isinstance(text, str)}


assert math.isclose(math.pi * 2.0**-31, 1.4629180792671596e-09, rel_tol=1e-15)
