"""Data: pictures and their classes, embedded, official, or a folder of one's own."""

from unlearn_lib.data.classes import parse_classes
from unlearn_lib.data.imagenet import imagenet_classes
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.data.sets import Data, batches_for, data_name, load_data, logits_of
from unlearn_lib.data.splits import Split
