"""Data: pictures and their classes, embedded, official, or a folder of one's own."""

from unlearn_lib.data.classes import parse_classes
from unlearn_lib.data.imagenet import imagenet_classes
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.data.sets import NAMES, Data, data_name, iterate_batches, load_data, predict_logits
from unlearn_lib.data.splits import Split
