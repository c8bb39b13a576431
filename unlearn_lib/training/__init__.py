"""Training: one loop for every model. A golden model is the same call with `forget={...}`.

LeNet5 on MNIST: 99.2 % of the test pictures right after 5 epochs, 13 s; KarpathyNet on CIFAR-10: 73.9 % after 15,
two minutes (means of three seeds, two cores). LeNet5 on digits: 98.5 %; KarpathyNet on shapes: 92 % (one seed).
"""

from unlearn_lib.training.fitting import PRECISIONS, fit, help_training
from unlearn_lib.training.loop import smooth_labels
