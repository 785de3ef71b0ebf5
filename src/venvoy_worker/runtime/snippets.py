"""Pieces of code to evaluate: an expression, or statements that may `return` and `await`.

Owns the compiled texts, the names that the texts of one lease share, and their event loop. Laws: a text is compiled
once for each place it stands at; names that it binds are global, also where it returns.

Imported by the first call of such a text. Trees are built without the module `ast`, which takes 5 ms to import.
"""

from __future__ import annotations

from . import coroutines, targets

_ONLY_TREE, _AWAIT = 0x400, 0x2000  # PyCF_ONLY_AST, PyCF_ALLOW_TOP_LEVEL_AWAIT of Python's own `ast`
_IS_COROUTINE, _YIELDS = 0x80, 0x20 | 0x200  # flags of code objects
_MOST_TEXTS = 256
_SCOPES = ("FunctionDef", "AsyncFunctionDef", "Lambda", "ClassDef")  # a `return` inside of these is theirs
_AWAITING = ("Await", "AsyncFor", "AsyncWith")

_compiled: dict[Key, CodeType] = {}  # the last used is last


def evaluate(text: str, values: dict[str, object], mode: str, session: str, place: Place) -> object:
    """Run a text and return the value of the expression, or what it returns.

    Args:
        values: names the text may use, besides the builtins.
        mode: "eval" for an expression, or statements with a `return`; "exec" for statements.
        session: the lease whose names are kept between its calls; "" keeps none.
        place: where the text stands: (file name, number of its first line there, columns its lines are moved by).

    Raises:
        SyntaxError: it cannot be parsed. Besides this, what the text raises.
    """
    key = (text, mode, place)
    code = _compiled.pop(key, None) or _compile(text, mode, place)
    _compiled[key] = code
    if len(_compiled) > _MOST_TEXTS:
        del _compiled[next(iter(_compiled))]
    scope = _session_of(session)
    scope.names.update(values)
    try:
        run = eval if code.co_name == "<module>" else _call
        result = run(code, scope.names)
        return scope.run(result) if code.co_flags & _IS_COROUTINE else result
    except BaseException:
        _show_lines()
        raise


def compiled(text: str, place: Place) -> CodeType:
    """Return the code of statements that is to be run once, and whose lines are to be shown for as long as we live.

    Raises:
        SyntaxError: they cannot be parsed.
    """
    targets.show_lines_of(place[0], place[1], text)
    return _code(_parse(text, "exec", place), place[0], "exec", 0)


# --- compiling --------------------------------------------------------------------------------------------------------


def _compile(text: str, mode: str, place: Place) -> CodeType:
    """Return the code of a text: that of a module or expression, or of a function if it returns."""
    filename = place[0]
    problem = None
    if mode == "eval":
        try:
            return _code(_parse(text, "eval", place), filename, "eval")
        except SyntaxError as error:
            problem = error
    tree = _parse(text, "exec", place)
    kinds = _kinds_in(tree)
    if "Return" in kinds:
        return _function(tree.body, not kinds.isdisjoint(_AWAITING), filename)
    if problem is not None:
        what = "%s (eval() takes an expression, or statements with a return)" % problem.msg
        raise type(problem)(what, *problem.args[1:])
    return _code(tree, filename, "exec")


def _code(tree: Any, filename: str, mode: str, flags: int = _AWAIT) -> CodeType:
    code: CodeType = compile(tree, filename, mode, flags, dont_inherit=True)
    return code


def _parse(text: str, mode: str, place: Place) -> Any:
    """Return the tree of a text, with the positions that it has in its file."""
    filename, first, columns = place
    try:
        tree: Any = compile(text, filename, mode, _ONLY_TREE | _AWAIT, dont_inherit=True)
    except SyntaxError as error:
        raise _moved(error, first - 1) from None
    nodes = [tree]
    for node in nodes:  # which grows meanwhile
        nodes += _children(node)
        if "lineno" in node._attributes:
            _move(node, "lineno", "col_offset", first, columns)
            _move(node, "end_lineno", "end_col_offset", first, columns)
    return tree


def _move(node: Any, line: str, column: str, first: int, columns: tuple[int, ...]) -> None:
    number = getattr(node, line, None)
    if number is None:
        return
    setattr(node, line, number + first - 1)
    if 0 < number <= len(columns):
        setattr(node, column, getattr(node, column) + columns[number - 1])


def _moved(error: SyntaxError, lines: int) -> SyntaxError:
    """Return an error with the line numbers of the file; it is rebuilt from its arguments elsewhere."""
    if not lines or error.lineno is None:
        return error
    message, (filename, line, *rest) = error.args
    if len(rest) > 2 and rest[2] is not None:
        rest[2] += lines
    return type(error)(message, (filename, line + lines, *rest))


def _children(node: Any) -> list[Any]:
    found = []
    for name in node._fields:
        value = getattr(node, name, None)
        found += [part for part in (value if isinstance(value, list) else [value]) if hasattr(part, "_fields")]
    return found


def _kinds_in(tree: Any) -> set[str]:
    """Return what kinds of nodes there are outside of functions and classes; what they annotate is made plain."""
    kinds = set()
    nodes = [tree]
    for node in nodes:
        kind = type(node).__name__
        kinds.add("AsyncFor" if kind == "comprehension" and node.is_async else kind)
        if kind == "AnnAssign":
            node.simple = 0  # an annotated name cannot be global
        if kind not in _SCOPES:
            nodes += _children(node)
    return kinds


def _function(body: list[Any], is_async: bool, filename: str) -> CodeType:
    """Return the code of a function with this body, all names of which are global."""
    head = "%sdef snippet():\n global _" % ("async " if is_async else "")
    tree: Any = compile(head, filename, "exec", _ONLY_TREE)
    function = tree.body[0]
    function.body[1:] = body
    code = _code_of(tree, filename)
    names = [name for name in code.co_varnames + code.co_cellvars if name.isidentifier()]
    function.body[0].names = names or ["_"]
    code = _code_of(tree, filename)
    if code.co_flags & _YIELDS:
        raise SyntaxError("'yield' outside function", (filename, body[0].lineno, None, None))
    return code


def _code_of(tree: Any, filename: str) -> CodeType:
    module = compile(tree, filename, "exec", dont_inherit=True)
    code: CodeType = next(part for part in module.co_consts if isinstance(part, type(module)))
    return code


def _call(code: CodeType, names: dict[str, object]) -> object:
    function: Any = type(_call)
    return function(code, names)()


# --- running ----------------------------------------------------------------------------------------------------------


class _Session:
    """What the texts of one lease share.

    Args:
        lasts: it is used again, so its event loop is kept.
    """

    def __init__(self, lasts: bool) -> None:
        self.names: dict[str, object] = {"__builtins__": __builtins__, "__name__": "venvoy_session"}
        self._lasts = lasts
        self._loop: Any = None

    def run(self, coroutine: Any) -> object:
        """Run a coroutine to its end; tasks that it leaves go on while the next one runs."""
        if not self._lasts or coroutines.has_loop():
            return coroutines.finish(coroutine)
        import asyncio

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # the call was cancelled while the loop slept
                task.cancel()
                self._loop.run_until_complete(asyncio.wait([task]))
            raise

    def end(self) -> None:
        """Cancel what is left, and close the loop."""
        if self._loop is not None:
            import asyncio

            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


_session = _Session(lasts=True)
_session_id = ""  # the lease that has it


def _session_of(session_id: str) -> _Session:
    global _session, _session_id
    if not session_id:
        return _Session(lasts=False)
    if session_id != _session_id:
        old, _session, _session_id = _session, _Session(lasts=True), session_id
        old.end()
    return _session


def _show_lines() -> None:
    for text, _, place in list(_compiled):
        targets.show_lines_of(place[0], place[1], text)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, Tuple

    Place = Tuple[str, int, Tuple[int, ...]]
    Key = Tuple[str, str, Place]
