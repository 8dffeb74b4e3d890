"""What is served: repository scan -> wanted set -> reconciler -> engine.

    scan = scan_repositories([Path("models")])
    reconciler = Reconciler(engine.core)
    await reconciler.set_wanted(scan.wanted, scan.failures)
    await reconciler.settle()

pbtxt.py reads text protobuf with positions, config_fields.py is the table of what is supported, model_config.py turns
a config.pbtxt and model_yaml.py a model.yaml into settings (README.md: every key), completed.py makes a ModelConfig of
them again, repository.py walks Triton's layout, reconciler.py makes the engine hold what is wanted, model_control.py has
clients change that (load, unload).
"""

from fastserve.lifecycle.completed import completed_config, config_json
from fastserve.lifecycle.model_control import ModelControl
from fastserve.lifecycle.reconciler import ModelState, Reconciler
from fastserve.lifecycle.repository import Repositories, Scan, scan_repositories
from fastserve.lifecycle.settings import ModelDefaults
from fastserve.lifecycle.version_spec import Problem, TensorShape, VersionSpec

__all__ = [
    "ModelControl",
    "ModelDefaults",
    "ModelState",
    "Problem",
    "Reconciler",
    "Repositories",
    "Scan",
    "TensorShape",
    "VersionSpec",
    "completed_config",
    "config_json",
    "scan_repositories",
]
