"""Panels: what people touch. They call the other wings, and hold no logic of their own."""

from unlearn_lib.experiment import Stopped
from unlearn_lib.panels.base import picture_png
from unlearn_lib.panels.compare import ComparisonPanel, comparison_panel
from unlearn_lib.panels.explore import ImpressionExplorer, impression_explorer
from unlearn_lib.panels.lab import LabPanel, lab_panel
from unlearn_lib.panels.unlearning import UnlearningPanel, unlearning_panel
