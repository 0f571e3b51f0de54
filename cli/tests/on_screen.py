"""What a person sees of what is printed, and what a stranger might try to have printed."""

import io
from typing import Final

from rich.console import Console, RenderableType

STRANGE: Final = "\x1b[31mred\x07\r\x9b2J\x7f\t"


def shown(renderable: RenderableType, width: int = 160) -> str:
    """The text, without colours."""
    screen = io.StringIO()
    Console(file=screen, width=width, color_system=None).print(renderable)
    return screen.getvalue()
