"""Writes the parts of a shipment as the text of one module; see `module` for the laws of the text."""

from __future__ import annotations

import builtins
import os
from typing import Any

from venvoy.errors import EncodingError
from venvoy.source.cut import Cut, describe
from venvoy.source.parts import Part

_Alias = tuple[str, Part, str]
Placed = tuple[str, int, str]  # file name, first line, text


def write(
    main: Part, parts: list[Part], imports: list[str], aliases: list[_Alias], meanings: dict[str, Any]
) -> tuple[str, str, list[Placed]]:
    """The text, the name that `main` has in it, and lines that a worker finds neither in it nor in a file."""
    writer = _Writer(main.cut.filename, aliases)
    natural = [part.cut.name for part in parts]
    ordered = _in_order(parts, main.cut.filename)
    here = [p.first_line for p in parts if p.cut.line and p.cut.filename == main.cut.filename]
    # Parts of other files, and lines of ours, may be needed first: leave a line or two for each.
    writer.pad_to(min(here) - 1 - 2 * (len(parts) - len(here)))
    writer.lines.append("; ".join(["from __future__ import annotations", *imports]))
    for part in ordered:
        name = part.cut.name
        # A definition under a name that means something else here would hide that.
        free = meanings.get(name, part.thing) is part.thing and natural.count(name) == 1
        writer.place(part, free and (name in meanings or not hasattr(builtins, name)))
    return "\n".join(writer.lines) + "\n", writer.handles[main], writer.unseen


def _in_order(parts: list[Part], filename: str) -> list[Part]:
    """By line, as they were executed here, except that what a part needs comes first."""
    pending = sorted(parts, key=lambda p: (p.cut.filename != filename, p.cut.filename, p.cut.line))
    done: set[Part] = set()
    ordered = []
    while pending:
        best = next((p for p in pending if p.needed() <= done), None)
        best = best or next((p for p in pending if p.direct() <= done), None)
        # A cycle of closures: begin with one that can get its cells later.
        best = best or next(
            (p for p in pending if {*p.defaults, *p.runs} <= done and not isinstance(p.thing, type)), pending[0]
        )
        pending.remove(best)
        done.add(best)
        ordered.append(best)
    return ordered


class _Writer:
    """The lines so far, and under which name each part can be reached from there."""

    def __init__(self, filename: str, aliases: list[_Alias]) -> None:
        self.filename = filename
        self.aliases = aliases
        self.lines: list[str] = []
        self.handles: dict[Part, str] = {}
        self.unseen: list[Placed] = []  # of cells of a notebook, most of which begin with a definition
        self._late: list[tuple[Part | None, str]] = []  # cells to be filled when that part is there

    def pad_to(self, line: int) -> None:
        """Make the next line at least number `line`."""
        self.lines += [""] * (line - 1 - len(self.lines))

    def place(self, part: Part, name_is_free: bool) -> None:
        cut, name, late = part.cut, part.cut.name, self._late_cells(part)
        chunk = self._chunk(part, late)
        if not cut.line:
            self.lines += chunk
        elif cut.filename == self.filename and name_is_free and len(self.lines) < part.first_line:
            self.pad_to(part.first_line)
            self.lines += chunk
        else:
            padding = f"'\\n' * {part.first_line - 1} + " if part.first_line > 1 else ""
            source = "\n".join([*chunk, ""])
            if not os.path.exists(cut.filename):
                self.unseen.append((cut.filename, cut.line, "\n".join(cut.lines)))
            compiled = f"compile({padding}{source!r}, {cut.filename!r}, 'exec')"
            if name_is_free:
                self.lines.append(f"exec({compiled}, globals())")
            else:
                name = f"_venvoy_part_{len(self.handles)}"
                self.lines.append(f"{name} = {{}}; exec({compiled}, globals(), {name}); {name} = {name}[{cut.name!r}]")
        self.handles[part] = name
        closure = f"{name}{'.__wrapped__' * part.layers}.__closure__"
        for cell in late:
            index = f"{closure.replace('__closure__', '__code__')}.co_freevars.index({cell!r})"
            text = f"{closure}[{index}].cell_contents = {part.cells[cell]}"
            self._late.append((part.cell_parts.get(cell), text))
        self._finish(part, name)

    def _late_cells(self, part: Part) -> list[str]:
        """Free variables whose value is not there yet, or that the definition itself would overwrite."""
        waiting = {cell for cell, value in part.cell_parts.items() if value not in self.handles}
        late = [cell for cell in part.cells if cell in waiting or cell == part.cut.name]
        if late and isinstance(part.thing, type):
            raise EncodingError(
                f"cannot send {describe(part.thing)} as source: it and {late[0]!r}, a variable of the function "
                "around it, need each other; define the class at the top level"
            )
        return late

    def _finish(self, part: Part, name: str) -> None:
        """The names by which others call the part, and the cells that waited for it."""
        lines = [f"{alias} = {name}{path}" for alias, p, path in self.aliases if p is part and alias != name + path]
        lines += [text for waits_for, text in self._late if waits_for is None or waits_for in self.handles]
        self._late = [(p, text) for p, text in self._late if p is not None and p not in self.handles]
        if lines:
            self.lines.append("; ".join(lines))

    def _chunk(self, part: Part, late: list[str]) -> list[str]:
        """The text of one part, from its first line; free variables become parameters of a function around it."""
        cut, parameters = part.cut, ", ".join(part.cells)
        values = ", ".join("None" if cell in late else name for cell, name in part.cells.items())
        if part.is_lambda:
            return _lambda_chunk(cut, parameters, values)
        if parameters:
            maker = f"_venvoy_make_{len(self.handles)}"
            opening, closing = f"def {maker}({parameters}):", f"{cut.indent}return {cut.name}"
            return [opening, *cut.lines, closing, f"{cut.name} = {maker}({values})"]
        return ["if 1:", *cut.lines] if cut.indent else cut.lines


def _lambda_chunk(cut: Cut, parameters: str, values: str) -> list[str]:
    opening = f"{cut.name} = (lambda {parameters}: (" if parameters else f"{cut.name} = ("
    lines = list(cut.lines)
    lines[-1] += f"))({values})" if parameters else ")"
    # On a line of its own, the lambda keeps its columns, which tracebacks underline.
    return [opening + lines[0].lstrip(), *lines[1:]] if cut.line == 1 else [opening, *lines]
