"""Readable spelling of CLIP's vocabulary entries, and names made of letters."""

from __future__ import annotations

END_OF_WORD = "</w>"
PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that represent themselves
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
# printable letter -> byte, as in GPT-2's byte-level BPE
BYTES = {chr(byte): byte for byte in PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(OTHERS)}


def readable(piece: str) -> str:
    """An entry without its end-of-word mark, decoded from its bytes: ðŁĲ± is a cat's face.

    Unchanged if it is not a byte-level entry (Radford et al. 2019, section 2.2), or only part of a character.
    """
    text = piece.removesuffix(END_OF_WORD)
    try:
        return bytes(BYTES[letter] for letter in text).decode()
    except (KeyError, UnicodeDecodeError):
        return text


def letters(number: int) -> str:
    """0, 1, 2 ... -> a, b, ... z, ba: hosts would read digits at the end of a private name as a weight."""
    high, low = divmod(number, 26)
    return (letters(high) if high else "") + chr(ord("a") + low)
