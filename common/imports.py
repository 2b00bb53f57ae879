"""Imports of torch and timm, which take seconds, made shorter."""

import contextlib
import gc
import importlib
import sys
import types

COMPILER = ("torch._dynamo", "torch._dynamo.utils")
TENSOR = "torch.distributed.tensor"


@contextlib.contextmanager
def quick_imports(compiles=True):
    """To import torch and timm in: looking for garbage takes a quarter of the time meanwhile.

    compiles: False where no model will be compiled. Torchvision, timm and torch's optimizers import
    torch's compiler, which takes a second, only to say what it should leave alone. What stands in
    for it imports it as soon as anything else is asked of it. And timm imports TENSOR, which takes
    half a second, to know tensors of many machines if it meets one; then it does not.
    """
    gc.disable()
    try:
        if not compiles:
            import torch  # noqa: F401  its own import must not meet them

            sys.modules.setdefault(TENSOR, None)
            for name in COMPILER:
                sys.modules.setdefault(name, _NoCompiler(name))
        yield
    finally:
        gc.enable()
        if sys.modules.get(TENSOR, True) is None:
            del sys.modules[TENSOR]


class _NoCompiler(types.ModuleType):
    """Stands in for a module of torch's compiler until more is asked of it than this."""

    config = types.SimpleNamespace()  # what is set in it is kept
    disable = staticmethod(lambda function, *_, **__: function)
    graph_break = staticmethod(lambda: None)
    is_compile_supported = staticmethod(lambda device: False)

    def __getattr__(self, name):
        # `inspect` looks at the names of all modules; __path__ finds those of a package.
        if name.startswith("__") and (name != "__path__" or self.__name__.endswith("utils")):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            for part in COMPILER:
                del sys.modules[part]
            for key, value in vars(self.config).items():
                setattr(importlib.import_module("torch._dynamo").config, key, value)
        return getattr(importlib.import_module(self.__name__), name)
