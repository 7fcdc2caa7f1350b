"""Pieces of CLIP's vocabulary as people read them."""

from __future__ import annotations

END_OF_WORD = "</w>"
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that stand for themselves
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
# a printable letter for each byte, those that have one of their own first, as GPT-2's byte-level BPE has them
BYTES = {chr(byte): byte for byte in PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(OTHERS)}


def readable(piece: str) -> str:
    """A piece without its end-of-word mark, its letters put together from their bytes: ðŁĲ± is a cat's face.

    Left as it is where it is no byte-level piece (Radford et al. 2019, section 2.2), or only a part of a letter.
    """
    text = piece.removesuffix(END_OF_WORD)
    try:
        return bytes(BYTES[letter] for letter in text).decode()
    except (KeyError, UnicodeDecodeError):
        return text
