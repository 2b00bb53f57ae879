"""Imports of torch and timm, which take seconds, made shorter."""

import contextlib
import gc
import importlib
import sys
import types

TENSOR = "torch.distributed.tensor"


@contextlib.contextmanager
def quick_imports(compiles=True):
    """To import torch and timm in: looking for garbage takes a quarter of the time meanwhile.

    compiles: False where no model will be compiled. Torchvision, timm and torch's optimizers import
    torch's compiler, which takes a second, only to say what it should leave alone. What stands in
    for it from then on imports it as soon as anything else is asked of it. And timm imports TENSOR,
    which takes half a second, to know tensors of many machines if it meets one; then it does not.
    """
    gc.disable()
    try:
        if not compiles:
            import torch  # noqa: F401  its own import must not meet them

            sys.modules.setdefault(TENSOR, None)
            if "torch._dynamo" not in sys.modules:
                sys.modules["torch._dynamo"] = _NoCompiler("torch._dynamo")
                sys.modules["torch._dynamo.utils"] = _NoCompiler("torch._dynamo.utils")
        yield
    finally:
        gc.enable()
        if sys.modules.get(TENSOR, True) is None:
            del sys.modules[TENSOR]


class _NoCompiler(types.ModuleType):
    """Stands in for a module of torch's compiler until more is asked of it than this."""

    def __init__(self, name):
        super().__init__(name)
        self.config = types.SimpleNamespace()  # what is set in it is kept
        self.disable = lambda function, *_, **__: function
        self.graph_break = lambda: None
        self.is_compile_supported = lambda device: False

    def __getattr__(self, name):
        # `inspect` looks at the names of all modules; __path__ finds those of a package.
        if name.startswith("__") and (name != "__path__" or self.__name__.endswith("utils")):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            for part in ("torch._dynamo", "torch._dynamo.utils"):
                sys.modules.pop(part)
            for key, value in vars(self.config).items():
                setattr(importlib.import_module("torch._dynamo").config, key, value)
        return getattr(importlib.import_module(self.__name__), name)
