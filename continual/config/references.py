"""References to the user's Python, "module:function": checked without running the module, imported, called."""

import ast
import importlib
import importlib.util
import inspect
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.contract.announce import announce
from continual.errors import ConfigurationError, describe, nearest, one_line
from continual.errors.syntax import parse


def load_function(key: str, reference: str) -> Callable[..., Any]:
    """Import and return the function that "module:function" names.

    Args:
        key: The configuration key that holds the reference, for messages.
        reference: "module:function".

    Raises:
        ConfigurationError: The module cannot be imported or has no such function.
    """
    module, _, name = reference.partition(":")
    refuse_standard(key, reference)
    announce("imports", module, key)
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise _no_module(key, module, str(error.name)) from error
    except (Exception, SystemExit) as error:
        problem = f"importing `{module}` failed ({describe(error)})"
        raise ConfigurationError(key, problem, "correct that module") from error
    function = getattr(loaded, name, None)
    if not callable(function):
        raise _no_function(key, module, name, [known for known in vars(loaded) if callable(vars(loaded)[known])])
    return function


def refuse_standard(key: str, reference: str) -> None:
    """Raise ConfigurationError for a function of Python's own library: none makes documents, models or tokenizers.

    A module of the user's that has the same name as one of these, and stands before it on the path, is the user's.
    """
    module = reference.partition(":")[0]
    if module.partition(".")[0] not in sys.stdlib_module_names:
        return
    origin = module_file(reference, key)
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    installed = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    within = any(Path(origin).is_relative_to(folder) for folder in folders)
    if origin in ("built-in", "frozen") or (within and not any(Path(origin).is_relative_to(f) for f in installed)):
        problem = f"`{reference}` belongs to Python itself, and is not called for a configuration"
        raise ConfigurationError(key, problem, "name a function of your own")


def find_function(key: str, reference: str) -> None:
    """Check that a function exists without running its module, which may import torch.

    Raises ConfigurationError like `load_function`, except for errors that only running the module can show.
    """
    module, _, name = reference.partition(":")
    refuse_standard(key, reference)
    file = module_file(reference, key)
    if not file.endswith(".py"):
        return
    try:
        tree = parse(Path(file).read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError) as error:
        problem = f"`{module}` cannot be read ({one_line(error)})"
        raise ConfigurationError(key, problem, "correct that module") from error
    names = defined_names(tree)
    if name not in names and "*" not in names:
        raise _no_function(key, module, name, names)


def module_file(reference: str, key: str = "") -> str:
    """Return the file of the module in "module:function" without running it. Raise ConfigurationError if it has none.

    The packages that hold the module are imported.
    """
    module = reference.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError as error:
        raise _no_module(key, module, str(error.name)) from error
    except (Exception, SystemExit) as error:  # of the packages, or of a name that Python cannot import
        problem = f"`{module}` cannot be imported ({one_line(error)})"
        raise ConfigurationError(key, problem, "correct its name, or the package that holds it") from error
    if spec is None or spec.origin is None:
        raise _no_module(key, module, module)
    return spec.origin


def call(key: str, reference: str, arguments: dict[str, Any]) -> Any:
    """Call the function that `reference` names with keyword arguments and return its result.

    Raises ConfigurationError if there is no such function, it does not take the arguments, or it fails.
    """
    function = load_function(key, reference)
    announce("calls", reference, key)
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        parameters = list(inspect.signature(function).parameters)
        fix = f"it takes {', '.join(parameters)}" if parameters else "it takes none"
        problem = f"`{reference}` does not take these arguments ({one_line(error)})"
        raise ConfigurationError(key, problem, fix) from error
    except ValueError:
        pass  # a builtin without a signature
    return attempt(key, reference, lambda: function(**arguments))


def attempt(key: str, reference: str, action: Callable[[], Any]) -> Any:
    """Run `action`, a part of the user's code. Convert any exception from it into a ConfigurationError."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        problem = f"`{reference}` failed ({describe(error)})"
        raise ConfigurationError(key, problem, "correct the function or its arguments") from error


def _no_module(key: str, module: str, missing: str) -> ConfigurationError:
    if module == missing or module.startswith(f"{missing}."):
        problem = f"there is no module `{missing}` in {Path.cwd()} or the installed packages"
        fix = f"start in the project's root, the folder from which `{module}` can be imported, or install it"
        return ConfigurationError(key, problem, fix)
    return ConfigurationError(key, f"`{module}` needs the module `{missing}`, which is missing", "install it")


def _no_function(key: str, module: str, name: str, known: list[str]) -> ConfigurationError:
    near = nearest(name, [word for word in known if not word.startswith("_")])
    fix = f"did you mean `{module}:{near}`?" if near else "name one of its functions"
    return ConfigurationError(key, f"`{module}` has no function `{name}`", fix)


def defined_names(tree: ast.Module) -> list[str]:
    """Return all names that a module defines or imports at any depth; `*` if it imports all names of another one."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return names
