"""References to the user's Python, "module:function", checked with as little of it run as possible."""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.errors import ConfigurationError, nearest, one_line


def load_function(key: str, reference: str) -> Callable[..., Any]:
    """The function behind "module:function". Raises ConfigurationError naming what is missing."""
    module, _, name = reference.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _not_found(key, module, str(error.name)) from error
    except Exception as error:
        problem = f"importing `{module}` failed ({type(error).__name__}: {one_line(error)})"
        raise ConfigurationError(key, problem, "correct that module") from error
    function = getattr(loaded, name, None)
    if not callable(function):
        raise _no_function(key, module, name, [known for known in vars(loaded) if callable(vars(loaded)[known])])
    return function


def find_function(key: str, reference: str) -> None:
    """Makes sure that the function is there without running its module, which may load torch.

    Raises ConfigurationError like `load_function`.
    """
    module, _, name = reference.partition(":")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        raise _not_found(key, module, str(error.name)) from error
    except (ImportError, ValueError) as error:
        raise ConfigurationError(key, f"`{module}` is no module ({one_line(error)})", "correct its name") from error
    if found is None:
        raise _not_found(key, module, module)
    if not found.origin or not found.origin.endswith(".py"):
        return
    try:
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    except (SyntaxError, OSError) as error:
        problem = f"`{module}` cannot be read ({one_line(error)})"
        raise ConfigurationError(key, problem, "correct that module") from error
    names = _top_names(tree)
    if name not in names and "*" not in names:
        raise _no_function(key, module, name, names)


def module_file(reference: str) -> str:
    """Return the file of the module in "module:function" without running it. Raises ConfigurationError."""
    module = reference.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        fix = "start from the folder that holds the package, or set PYTHONPATH"
        raise ConfigurationError("", f"there is no module `{module}`", fix)
    return spec.origin


def call(key: str, reference: str, arguments: dict[str, Any]) -> Any:
    """What the function returns for keyword arguments. Raises ConfigurationError where it cannot be called so."""
    function = load_function(key, reference)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        parts = list(inspect.signature(function).parameters)
        fix = f"it takes {', '.join(parts)}" if parts else "it takes none"
        problem = f"`{reference}` does not take these arguments ({one_line(error)})"
        raise ConfigurationError(key, problem, fix) from error
    except ValueError:
        pass  # a builtin without a signature
    return attempt(key, reference, lambda: function(**arguments))


def attempt(key: str, reference: str, action: Callable[[], Any]) -> Any:
    """Runs a part of the user's code. Raises ConfigurationError in place of whatever it raises."""
    try:
        return action()
    except Exception as error:
        problem = f"`{reference}` failed ({type(error).__name__}: {one_line(error)})"
        raise ConfigurationError(key, problem, "correct the function or its arguments") from error


def _not_found(key: str, module: str, missing: str) -> ConfigurationError:
    if module == missing or module.startswith(f"{missing}."):
        problem = f"there is no module `{missing}` in {Path.cwd()} or the installed packages"
        fix = f"start in the project's root, the folder from which `{module}` can be imported, or install it"
        return ConfigurationError(key, problem, fix)
    return ConfigurationError(key, f"`{module}` needs the module `{missing}`, which is missing", "install it")


def _no_function(key: str, module: str, name: str, known: list[str]) -> ConfigurationError:
    near = nearest(name, [word for word in known if not word.startswith("_")])
    fix = f"did you mean `{module}:{near}`?" if near else "name one of its functions"
    return ConfigurationError(key, f"`{module}` has no function `{name}`", fix)


def _top_names(tree: ast.Module) -> list[str]:
    """What a module defines or imports, inside top-level `if` and `try` too; `*` for what cannot be known."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return names
