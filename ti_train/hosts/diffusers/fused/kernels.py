"""Kernels in Triton's language for images in channels-last layout, [images, pixels, channels] in memory, and tokens.

A group norm (Wu and He 2018) with the SiLU behind it is z = scale x + shift, for each channel of an image, and
y = z sigmoid(z). Its gradient is dx = scale g + slope x + offset with g = dy silu'(z), where slope and offset come from
the sums of g and g x over each group (Ioffe and Szegedy 2015, section 3). All is computed in fp32, and a pixel is
subtracted before summing, since differences of large sums lose precision (Chan et al. 1983, section 3): one in the
middle of each channel, since those at the border of an image are unlike the others behind padded convolutions.
What is added to a channel before its norm, as a bias or a time embedding, changes these coefficients alone.
"""

import triton
import triton.language as tl

ROWS, COLUMNS = 32, 64  # pixels and channels that a program has in registers at once
PARTS = 16  # of an image's pixels, summed up by a program at once
BLOCK = 2048  # elements of an image that a program writes
GATED = 1024  # elements of tokens that a program gates
TOKENS = 4096  # elements of whole tokens that a program has in registers at once, about


def power_of_two(number: int) -> int:
    """The next one from this number on: a program has as many elements."""
    return 1 << (number - 1).bit_length()


@triton.jit
def silu_slope(z):
    """d silu / dz."""
    s = tl.sigmoid(z)
    return s * (1 + z * (1 - s))


@triton.jit
def middle(image, pixels, channels):
    """Where the pivots of an image are."""
    return (image.to(tl.int64) * pixels + pixels // 2) * channels


@triton.jit
def sums(
    x, dy, scale, shift, first, second, pixels, channels, each,
    BACKWARD: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each channel, over `each` pixels of an image: the sums of x and x^2, less the pivot; of g and g x."""
    image, part = tl.program_id(0), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    there = column < channels
    one = tl.zeros([ROWS, COLUMNS], tl.float32)
    two = tl.zeros([ROWS, COLUMNS], tl.float32)
    pivot = tl.load(x + middle(image, pixels, channels) + column, there, 0.0).to(tl.float32)[None, :]
    if BACKWARD and SILU:
        a = tl.load(scale + image * channels + column, there, 0.0)[None, :]
        b = tl.load(shift + image * channels + column, there, 0.0)[None, :]
    for start in range(part * each, (part + 1) * each, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < pixels)[:, None] & there[None, :]
        at = (image * pixels + row).to(tl.int64)[:, None] * channels + column[None, :]
        value = tl.load(x + at, inside, 0.0).to(tl.float32)
        if BACKWARD:
            g = tl.load(dy + at, inside, 0.0).to(tl.float32)
            if SILU:
                g *= silu_slope(value * a + b)
            one += g
            two += g * (value - pivot)
        else:
            less = tl.where(inside, value - pivot, 0.0)
            one += less
            two += less * less
    at = (image * tl.num_programs(1) + part) * channels + column
    tl.store(first + at, tl.sum(one, 0), there)
    tl.store(second + at, tl.sum(two, 0), there)


@triton.jit
def coefficients(
    x, added, first, second, weight, bias, means, rstds, factor, term, parts, pixels, channels, eps,
    ADDED: tl.constexpr, BACKWARD: tl.constexpr, PARTS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Of one group of one image: scale and shift, the mean and 1 / deviation; backward, slope and offset."""
    image, group, groups = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    depth = channels // groups
    inside = tl.arange(0, DEPTH) < depth
    column = group * depth + tl.arange(0, DEPTH)
    one = tl.zeros([DEPTH], tl.float32)
    two = tl.zeros([DEPTH], tl.float32)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)
        at = (image * parts + part)[:, None] * channels + column[None, :]
        mask = (part < parts)[:, None] & inside[None, :]
        one += tl.sum(tl.load(first + at, mask, 0.0), 0)
        two += tl.sum(tl.load(second + at, mask, 0.0), 0)
    w = tl.load(weight + column, inside, 0.0).to(tl.float32)
    pivot = tl.load(x + middle(image, pixels, channels) + column, inside, 0.0).to(tl.float32)
    count = pixels * depth
    to = image * channels + column
    more = tl.zeros([DEPTH], tl.float32)
    if ADDED:
        more += tl.load(added + to, inside, 0.0).to(tl.float32)
    moment = image * groups + group
    if BACKWARD:
        mean, rstd = tl.load(means + moment), tl.load(rstds + moment)
        mean_of_g = tl.sum(w * one, 0) / count
        slope = -rstd * rstd * rstd * tl.sum(w * (two + (pivot + more - mean) * one), 0) / count
        tl.store(factor + to, slope + tl.zeros([DEPTH], tl.float32), inside)
        tl.store(term + to, -rstd * mean_of_g + slope * (more - mean), inside)
    else:
        of_channel = pivot + more + one / pixels
        mean = tl.sum(of_channel, 0) / depth
        apart = tl.where(inside, of_channel - mean, 0.0)
        within = tl.sum(tl.maximum(two - one * one / pixels, 0.0), 0)
        rstd = 1 / tl.sqrt((within + pixels * tl.sum(apart * apart, 0)) / count + eps)
        tl.store(means + moment, mean)
        tl.store(rstds + moment, rstd)
        tl.store(factor + to, rstd * w, inside)
        tl.store(term + to, tl.load(bias + column, inside, 0.0).to(tl.float32) + (more - mean) * rstd * w, inside)


@triton.jit
def applied(
    x, dy, scale, shift, slope, offset, out, channels, size,
    BACKWARD: tl.constexpr, SILU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y of an image's `size` elements; backward, dx."""
    image = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    column = image * channels + at % channels
    at = image.to(tl.int64) * size + at
    value = tl.load(x + at, inside, 0.0).to(tl.float32)
    a = tl.load(scale + column, inside, 0.0)
    z = value * a + tl.load(shift + column, inside, 0.0)
    if BACKWARD:
        g = tl.load(dy + at, inside, 0.0).to(tl.float32)
        if SILU:
            g *= silu_slope(z)
        found = a * g + tl.load(slope + column, inside, 0.0) * value + tl.load(offset + column, inside, 0.0)
    else:
        found = z
        if SILU:
            found = z * tl.sigmoid(z)
    tl.store(out + at, found.to(out.dtype.element_ty), inside)


@triton.jit
def summed(x, y, bias, out, channels, size, BLOCK: tl.constexpr):
    """x + y + bias of images with `size` elements in all."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    found = tl.load(x + at, inside, 0.0).to(tl.float32) + tl.load(y + at, inside, 0.0).to(tl.float32)
    found += tl.load(bias + at % channels, inside, 0.0).to(tl.float32)
    tl.store(out + at, found.to(out.dtype.element_ty), inside)


@triton.jit
def layer_norm(
    x, y, weight, bias, total, out, means, rstds, tokens, width, eps,
    ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of tokens [width]: x + y, and its norm (Ba et al. 2016, equation 4)."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    there = column < width
    inside = (row < tokens)[:, None] & there[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    value = tl.load(x + at, inside, 0.0)
    if ADDED:
        value = (value.to(tl.float32) + tl.load(y + at, inside, 0.0).to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + at, value, inside)
    mean = tl.sum(value.to(tl.float32), 1) / width
    apart = tl.where(inside, value.to(tl.float32) - mean[:, None], 0.0)
    rstd = 1 / tl.sqrt(tl.sum(apart * apart, 1) / width + eps)
    w = tl.load(weight + column, there, 0.0).to(tl.float32)[None, :]
    b = tl.load(bias + column, there, 0.0).to(tl.float32)[None, :]
    tl.store(out + at, (apart * rstd[:, None] * w + b).to(out.dtype.element_ty), inside)
    tl.store(means + row, mean, row < tokens)
    tl.store(rstds + row, rstd, row < tokens)


@triton.jit
def layer_norm_backward(
    x, passed, dy, weight, means, rstds, dx, tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """The gradient of tokens that are normalized, and are passed by the norm as well."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    there = column < width
    inside = (row < tokens)[:, None] & there[None, :]
    at = row.to(tl.int64)[:, None] * width + column[None, :]
    mean = tl.load(means + row, row < tokens, 0.0)[:, None]
    rstd = tl.load(rstds + row, row < tokens, 0.0)[:, None]
    normal = tl.where(inside, (tl.load(x + at, inside, 0.0).to(tl.float32) - mean) * rstd, 0.0)
    w = tl.load(weight + column, there, 0.0).to(tl.float32)[None, :]
    g = tl.load(dy + at, inside, 0.0).to(tl.float32) * w
    along = tl.sum(g * normal, 1)[:, None] / width
    found = (g - tl.sum(g, 1)[:, None] / width - normal * along) * rstd
    found += tl.load(passed + at, inside, 0.0).to(tl.float32)
    tl.store(dx + at, found.to(dx.dtype.element_ty), inside)


@triton.jit
def gated_gelu(x, dy, out, tokens, width, BACKWARD: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of tokens [2 width]: the first half times GELU of the second; backward, dx (Shazeer 2020, equation 6).

    COLUMNS divides width.
    """
    token = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = token < tokens
    half = token.to(tl.int64) * width + column
    whole = token.to(tl.int64) * 2 * width + column
    value = tl.load(x + whole, inside, 0.0).to(tl.float32)
    gate = tl.load(x + whole + width, inside, 0.0).to(tl.float32)
    below = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))  # the normal distribution's share below the gate
    if BACKWARD:
        g = tl.load(dy + half, inside, 0.0).to(tl.float32)
        slope = below + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
        tl.store(out + whole, (g * gate * below).to(out.dtype.element_ty), inside)
        tl.store(out + whole + width, (g * value * slope).to(out.dtype.element_ty), inside)
    else:
        tl.store(out + half, (value * gate * below).to(out.dtype.element_ty), inside)
