"""The public names for type checkers and editors, which cannot see that `__init__.py` imports them late."""

from dislab.data.dataset import Dataset as Dataset
from dislab.data.folder import from_folder as from_folder
from dislab.data.hold_out import hold_out as hold_out
from dislab.data.load import load_dataset as load_dataset
from dislab.data.own import from_arrays as from_arrays
from dislab.data.space import Circle as Circle
from dislab.data.space import FactorSpace as FactorSpace
from dislab.errors import DislabError as DislabError
from dislab.errors import DislabWarning as DislabWarning
from dislab.errors import RunFailed as RunFailed
from dislab.registry import load_plugin as load_plugin
from dislab.registry import register_dataset as register_dataset
from dislab.registry import register_metric as register_metric
from dislab.registry import register_model as register_model
from dislab.registry import register_network as register_network
from dislab.report.leaderboard import leaderboard as leaderboard
from dislab.report.published import published as published
from dislab.runs.config import RunConfig as RunConfig
from dislab.runs.evaluate import evaluate as evaluate
from dislab.runs.finished import Run as Run
from dislab.runs.record import load as load
from dislab.runs.record import runs_in as runs_in
from dislab.runs.run import run as run
from dislab.scoring.score import Scores as Scores
from dislab.scoring.table import CodeTable as CodeTable

__version__: str
