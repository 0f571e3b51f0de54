"""What a person sees of what is printed, and what a stranger might try to have printed."""

import io
from typing import Final

from rich.console import Console, RenderableType

STRANGE: Final = "\x1b[31mred\x07\r\x9b2J\x7f\t\u202egnp.exe\u2066\u200b\u2028\U000e0041"


def shown(renderable: RenderableType, width: int = 160) -> str:
    """The text, without colours."""
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None).print(renderable, crop=False)
    return screen.getvalue()
