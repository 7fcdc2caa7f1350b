"""Names to try in hosts' prompts, and the templates to try them in. Imports nothing: hosts load it too."""

from __future__ import annotations

NAMES = (
    *("my-cat", "Katze", "猫", "a", "v1.5", "cat,dog", "a;b", "a=b", "cat+dog", "cat@home", "cat&dog", "my_cat", "CAT"),
    *("_cat", "x'y", "a~b", "a%20b", "café", "cat's", "hand", "BREAKFAST", "x2", "embedding", "🐱1", "half-½", "a--b"),
)
REFUSED = {  # name -> the nearest good one
    "my cat": "my-cat",
    "my\u00a0cat": "my-cat",
    "my\u3000cat": "my-cat",
    "(x)": "x",
    "[cat]": "cat",
    "cat(1)": "cat-1",
    "cat[1]": "cat-1",
    "cat_(toy)": "cat_-toy",
    "cat,": "cat",
    ",cat": "cat",
    "cat!": "cat",
    "cat_": "cat",
    "cat-": "cat",
    "🐱": "🐱1",
    "AND": "and",
    "BREAK": "break",
    "my-AND-dog": "my-and-dog",
    "#1": "my-1",
    "a#b": "a-b",
    "a{b}": "a-b",
    "1.5": "my-1.5",
    "15": "my-15",
    "inf": "my-inf",
}
WEBUI_PROMPTS = (  # {} is the name
    *("a photo of {} on a table", "{}, red", "red, {}", "({}:1.2), red", "({}), x", "[{}]", "[{}:dog:0.5]"),
    *("[dog:{}:0.5]", "[{}|dog]", "{}. Then", "x\n{}\ny", "a {} AND a dog", "a dog BREAK {}", "{}"),
)
COMFYUI_PROMPTS = (  # {} is the name after ComfyUI's own mark
    *("a photo of {} on a table", "{}, red", "red, {}", "({}:1.2), red", "({}), x", "x (a {} b) y", "x\n{}\ny"),
    *("({} dog)", "{}"),
)
