"""Kernels in Triton's language for images in channels-last layout, [images, pixels, channels] in memory.

A group norm (Wu and He 2018) with the SiLU behind it is z = scale x + shift, for each channel of an image, and
y = z sigmoid(z). Its gradient is dx = scale g + slope x + offset with g = dy silu'(z), where slope and offset come from
the sums of g and g x over each group (Ioffe and Szegedy 2015, section 3). All is computed in fp32, and each channel's
first pixel is subtracted before summing, since differences of large sums lose precision (Chan et al. 1983, section 3).
"""

import triton
import triton.language as tl

ROWS, COLUMNS = 32, 64  # pixels and channels that a program has in registers at once
PARTS = 16  # of an image's pixels, summed up by a program at once
BLOCK = 2048  # elements of an image that a program writes
WIDTH = 1024  # elements of a token that a program writes


@triton.jit
def silu_slope(z):
    """d silu / dz."""
    s = tl.sigmoid(z)
    return s * (1 + z * (1 - s))


@triton.jit
def sums(
    x, dy, scale, shift, first, second, pixels, channels, each,
    BACKWARD: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of each channel, over `each` pixels of an image: the sums of x and x^2, less its first pixel; of g and g x."""
    image, part = tl.program_id(0), tl.program_id(1)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    there = column < channels
    one = tl.zeros([ROWS, COLUMNS], tl.float32)
    two = tl.zeros([ROWS, COLUMNS], tl.float32)
    pivot = tl.load(x + image.to(tl.int64) * pixels * channels + column, there, 0.0).to(tl.float32)[None, :]
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
    x, first, second, weight, bias, means, rstds, one_of, other, parts, pixels, channels, eps,
    BACKWARD: tl.constexpr, PARTS: tl.constexpr, DEPTH: tl.constexpr,
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
    pivot = tl.load(x + image.to(tl.int64) * pixels * channels + column, inside, 0.0).to(tl.float32)
    count = pixels * depth
    to = image * channels + column
    moment = image * groups + group
    if BACKWARD:
        mean, rstd = tl.load(means + moment), tl.load(rstds + moment)
        mean_of_g = tl.sum(w * one, 0) / count
        slope = -rstd * rstd * rstd * tl.sum(w * (two + (pivot - mean) * one), 0) / count
        tl.store(one_of + to, slope + tl.zeros([DEPTH], tl.float32), inside)
        tl.store(other + to, -rstd * mean_of_g - slope * mean + tl.zeros([DEPTH], tl.float32), inside)
    else:
        of_channel = pivot + one / pixels
        mean = tl.sum(of_channel, 0) / depth
        apart = tl.where(inside, of_channel - mean, 0.0)
        within = tl.sum(two - one * one / pixels, 0)
        rstd = 1 / tl.sqrt((within + pixels * tl.sum(apart * apart, 0)) / count + eps)
        tl.store(means + moment, mean)
        tl.store(rstds + moment, rstd)
        tl.store(one_of + to, rstd * w, inside)
        tl.store(other + to, tl.load(bias + column, inside, 0.0).to(tl.float32) - mean * rstd * w, inside)


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
def gated_gelu(x, dy, out, width, BACKWARD: tl.constexpr, WIDTH: tl.constexpr):
    """Of a token [2 width]: its first half times GELU of the second; backward, dx (Shazeer 2020, equation 6)."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = column < width
    value = tl.load(x + token * 2 * width + column, inside, 0.0).to(tl.float32)
    gate = tl.load(x + token * 2 * width + width + column, inside, 0.0).to(tl.float32)
    below = 0.5 * (1 + tl.erf(gate * 0.7071067811865476))  # the normal distribution's share below the gate
    if BACKWARD:
        g = tl.load(dy + token * width + column, inside, 0.0).to(tl.float32)
        slope = below + gate * 0.3989422804014327 * tl.exp(-0.5 * gate * gate)
        tl.store(out + token * 2 * width + column, (g * gate * below).to(out.dtype.element_ty), inside)
        tl.store(out + token * 2 * width + width + column, (g * value * slope).to(out.dtype.element_ty), inside)
    else:
        tl.store(out + token * width + column, (value * gate * below).to(out.dtype.element_ty), inside)
