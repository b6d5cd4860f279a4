"""`check`: is a streaming step that you changed still right, and if not, what is it?"""

import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ..runtime.codes import read_codes
from ..runtime.progress import progress
from . import options

ABOUT = (
    "judge a streaming step of your own: chunk schedules, rows, export, the graph against the step, and the likely "
    "cause of what is wrong; exit 1 where a check fails"
)
EXAMPLE = "my_step.py:MyStep --checkpoint demo --exporter dynamo"
EXPORTERS = ("torchscript", "dynamo", "none")


def add_options(parser) -> None:
    parser.add_argument(
        "step",
        metavar="FILE.py:CLASS",
        help="made as CLASS(decoder): a subclass or a changed copy of one of the package's streaming steps",
    )
    options.checkpoint(parser)
    parser.add_argument("--exporter", choices=EXPORTERS, default=EXPORTERS[0], help="none: no export and no graph")
    options.windowed(parser)
    parser.add_argument(
        "--codes", type=Path, metavar="FILE", help="codes [N, Q] or [B, N, Q] (default: the checkpoint's example)"
    )
    parser.add_argument("--json", action="store_true", help="print the judgement as JSON")


def run(args) -> int:
    from ..model import checkpoint
    from ..verification.workbench import judge

    step = _step(args.step)
    settings = options.windowed_settings(args)
    loaded = checkpoint.load(args.checkpoint)
    judged = judge(
        step,
        loaded,
        read_codes(args.codes, loaded.decoder.config) if args.codes else None,
        exporter=None if args.exporter == "none" else args.exporter,
        progress=progress(),
        **settings,
    )
    print(judged.to_json() if args.json else judged)
    return 0 if judged.passed else 1


def _step(named: str) -> Any:
    """The class that FILE.py:CLASS names; ValueError where there is none, in words and with the line."""
    file, _, name = named.rpartition(":")
    if not file or not name.isidentifier():
        raise ValueError(f"{named}: name a file and a class in it, FILE.py:CLASS")
    module = _module(Path(file))
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise ValueError(f"{file} has no {name}; it has {', '.join(own) or 'nothing of its own'}")
    step = getattr(module, name)
    if not inspect.isclass(step) and not callable(getattr(step, "forward", None)):
        raise ValueError(f"{file}: {name} is no class, it is a {type(step).__name__}")
    return step


def _module(path: Path) -> ModuleType:
    """The file as a module. It may import its neighbours as a script may, and in a package as a module may."""
    from ..verification.workbench.calls import in_words

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix != ".py":
        raise ValueError(f"{path}: is no Python file")
    name, folder = path.stem, path.resolve().parent
    while (folder / "__init__.py").is_file():
        name, folder = f"{folder.name}.{name}", folder.parent
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name) if "." in name else _script(path)
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: {error.msg}: {(error.text or '').strip()}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{path}: {in_words(error)}") from error
    finally:
        sys.path.remove(str(folder))


def _script(path: Path) -> ModuleType:
    """A file that is in no package; its name may be that of a module which Python has already."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # where a class looks for its own module
    spec.loader.exec_module(module)
    return module
